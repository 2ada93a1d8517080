//! A guest's outgoing requests.
