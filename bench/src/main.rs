//! Load generator; see the package description.
fn main() {}
