//! Exact bytes in, values out.
