//! The bare-metal binary. On a host it only says what it is.
fn main() {
    eprintln!("this program boots on bare aarch64: `make run` builds and starts it");
}
