//! The line as a whole, against real servers on loopback.

mod answers;
mod bounds;
mod destinations;
mod placeholders;
mod reveals;
mod world;
