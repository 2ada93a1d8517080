//! Tests of the whole: harness, integration, attacks and faults.
