//! The whole line: a caller, a skill, an answer.
