//! Values in, exact bytes out.
