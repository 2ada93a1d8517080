//! The `clawcoil` command.

mod browser;
mod sandbox;

fn main() {}
