//! Log drivers, one module each.

pub mod awslogs;
