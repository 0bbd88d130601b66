//! The shim, driven as containerd drives it: its command line, its calls, its streams, its exits, and what is left when
//! things end badly. Each promise about containers is kept with runc as the runtime and with the library in process.

#[path = "shim/client.rs"]
mod client;
#[path = "shim/life.rs"]
mod life;
#[path = "shim/peers.rs"]
mod peers;
#[path = "shim/streams.rs"]
mod streams;
#[path = "shim/trouble.rs"]
mod trouble;

/// Makes two tests of a function that takes a driver.
#[macro_export]
macro_rules! with_each_driver {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[test]
            fn with_runc() {
                super::$name("runc");
            }
            #[test]
            fn with_the_library() {
                super::$name("");
            }
        }
    )+};
}
