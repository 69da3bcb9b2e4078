unsafe extern "C" {
    safe fn answer() -> i32;
}

fn main() {
    println!("{}", answer());
}
