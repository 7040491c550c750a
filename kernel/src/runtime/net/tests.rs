mod addresses;
mod connections;
mod limits;
mod random;
