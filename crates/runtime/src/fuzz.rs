//! Entry points for the fuzzers: hostile bytes in, no privileges and no file system needed.
