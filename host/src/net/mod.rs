//! The only dialer.
