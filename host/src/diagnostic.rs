//! Errors of a file that people write, each with its place and the way out.
