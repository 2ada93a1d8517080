//! What happened, in a hash-chained log.
