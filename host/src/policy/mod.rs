//! What a skill declares, what the operator grants, and what follows.
