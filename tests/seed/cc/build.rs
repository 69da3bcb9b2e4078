fn main() {
    cc::Build::new().file("answer.c").compile("answer");
}
