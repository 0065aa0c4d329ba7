//! Has the program look for FFmpeg's libraries in `lib/` beside itself first, where a package has them.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        println!("cargo::rustc-link-arg-bins=-Wl,-rpath,$ORIGIN/lib");
        // The older kind of entry: it comes before LD_LIBRARY_PATH, so that another FFmpeg there does not get in, and
        // holds for the libraries that libraries need.
        println!("cargo::rustc-link-arg-bins=-Wl,--disable-new-dtags");
    }
}
