//! Lets crates that look for `getrandom` at run time find the one of `src/os.rs`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for function in ["getrandom", "clock_gettime"] {
        println!("cargo::rustc-link-arg=-Wl,--export-dynamic-symbol={function}");
    }
}
