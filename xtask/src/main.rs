//! Everything a developer runs: `cargo xtask ci`, `codegen`, `tidy`, `bench`, `fuzz`.
fn main() {}
