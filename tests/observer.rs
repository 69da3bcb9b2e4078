//! Observer: programs that a compile starts are watched whatever way they are started, a user's own preloaded library
//! stays in effect, and what cannot be watched or answered again is not stored.

mod fixture;
mod harness;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use fixture::{CARGOS, Compile, LINKINGS, app, macro_follows, macro_is_not_stored, reasons, settle, write_macro};
use harness::{World, run, stdout};

/// Follows a macro over two contents of `p/data/f`.
fn file_follows(body: &str, linkings: &[&str]) {
    macro_follows(body, linkings, &|world, follows| {
        let one = || world.write(&[("p/data/f", "one")]);
        let other = || world.write(&[("p/data/f", "another")]);
        follows(&[(&one, &[]), (&other, &[])]);
    });
}

fn gcc(world: &World, source: &str, arguments: &str) {
    world.write(&[("source.c", source)]);
    run(world.command("gcc").args(["-w", "source.c"]).args(arguments.split_whitespace()));
}

#[test]
fn a_child_with_a_cleared_environment() {
    file_follows(
        "String::from_utf8(std::process::Command::new(\"/bin/cat\").env_clear().arg(\"data/f\")
            .output().unwrap().stdout).unwrap()",
        CARGOS,
    );
    file_follows(
        "String::from_utf8(std::process::Command::new(\"/usr/bin/env\").args([\"-i\", \"/bin/sh\", \"-c\",
            \"exec /usr/bin/env -i /bin/cat data/f\"]).output().unwrap().stdout).unwrap()",
        CARGOS,
    );
}

#[test]
fn a_child_by_fork_and_exec() {
    file_follows(
        "use std::os::unix::process::CommandExt; let mut c = std::process::Command::new(\"cat\"); c.arg(\"data/f\");
        unsafe { c.pre_exec(|| Ok(())) }; String::from_utf8(c.output().unwrap().stdout).unwrap()",
        CARGOS,
    );
}

#[test]
fn a_child_by_posix_spawn_in_another_directory() {
    file_follows(
        "let mut c = std::process::Command::new(\"cat\"); c.arg(\"f\").current_dir(\"data\");
        String::from_utf8(c.output().unwrap().stdout).unwrap()",
        CARGOS,
    );
}

#[test]
fn a_fork_that_reads_itself() {
    file_follows(
        "extern \"C\" { fn fork() -> i32; fn waitpid(p: i32, s: *mut i32, o: i32) -> i32; fn _exit(c: i32) -> !; }
        unsafe { match fork() { 0 => { let t = std::fs::read(\"data/f\").unwrap(); _exit(t.len() as i32) }
        child => { let mut s = 0; waitpid(child, &mut s, 0); s.to_string() } } }",
        CARGOS,
    );
}

const STARTER: &str = "#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int n, char **a) {
    char *how = a[1], text[99] = \"\";
    if (!strcmp(how, \"popen\")) { fgets(text, 99, popen(\"cat data/f\", \"r\")); puts(text); return 0; }
    if (!strcmp(how, \"system\")) return system(\"cat data/f\");
    if (!strcmp(how, \"clearenv\")) { clearenv(); return system(\"/bin/cat data/f\"); }
    if (!strcmp(how, \"fopen\")) { fgets(text, 99, fopen(\"data/f\", \"r\")); puts(text); return 0; }
    if (!strcmp(how, \"freopen\")) { freopen(\"data/f\", \"r\", stdin); fgets(text, 99, stdin); puts(text); return 0; }
    if (!strcmp(how, \"execlp\")) execlp(\"cat\", \"cat\", \"data/f\", NULL);
    if (!strcmp(how, \"execl\")) execl(\"/bin/cat\", \"cat\", \"data/f\", NULL);
    if (!strcmp(how, \"execle\")) { char *none[] = {NULL}; execle(\"/bin/cat\", \"cat\", \"data/f\", NULL, none); }
    char *argv[] = {\"cat\", \"data/f\", NULL};
    pid_t child = vfork();
    if (child == 0) { execv(\"/bin/cat\", argv); _exit(9); }
    int status;
    waitpid(child, &status, 0);
    return status;
}";

#[test]
fn children_by_every_call_of_c() {
    for how in ["vfork", "popen", "system", "clearenv", "fopen", "freopen", "execlp", "execl", "execle"] {
        let body = format!(
            "let o = std::process::Command::new(\"./starter\").arg(\"{how}\").output().unwrap();
            assert!(o.status.success()); String::from_utf8(o.stdout).unwrap()"
        );
        let world = World::new();
        write_macro(&world, &body, LINKINGS[0]);
        gcc(&world, STARTER, "-o p/starter");
        let compile = Compile {
            world: &world,
            command: &|cached| app(&world, cached),
            out: "p/out",
            program: "p/out/app",
            messages: true,
        };
        let one = || world.write(&[("p/data/f", "one")]);
        let other = || world.write(&[("p/data/f", "another")]);
        println!("{how}");
        compile.follows(&[(&one, &[]), (&other, &[])]);
    }
}

/// A library that answers for one variable, as a user might preload it.
fn preloaded(world: &World, answer: &str, name: &str) {
    let source = format!(
        "#define _GNU_SOURCE
        #include <dlfcn.h>
        #include <string.h>
        char *getenv(const char *name) {{
            if (!strcmp(name, \"HIDDEN\")) return \"{answer}\";
            return ((char *(*)(const char *))dlsym(RTLD_NEXT, \"getenv\"))(name);
        }}"
    );
    world.remove(name);
    gcc(world, &source, &format!("-shared -fPIC -o {name}"));
}

#[test]
fn a_preloaded_library_stays_in_effect_and_is_an_input() {
    let body = "std::env::var(\"HIDDEN\").unwrap_or_else(|_| \"unset\".into()) + \" \"
        + &std::env::var(\"LD_PRELOAD\").unwrap_or_default()";
    macro_follows(body, CARGOS, &|world, follows| {
        let library = world.path("mine.so").into_os_string().into_string().unwrap();
        let other = world.path("other.so").into_os_string().into_string().unwrap();
        preloaded(world, "other", "other.so");
        let (one, two) = (|| preloaded(world, "one", "mine.so"), || preloaded(world, "two", "mine.so"));
        let (mine, others) = ([("LD_PRELOAD", library.as_str())], [("LD_PRELOAD", other.as_str())]);
        follows(&[(&one, &mine), (&two, &mine), (&|| (), &[]), (&|| (), &others)]);
    });
}

#[test]
fn a_preloaded_library_that_the_compile_does_not_ask_about() {
    let body = "extern \"C\" { fn getenv(n: *const u8) -> *const i8; }
        let text = unsafe { getenv(b\"HIDDEN\\0\".as_ptr()) }; if text.is_null() { \"unset\".into() } else {
        unsafe { std::ffi::CStr::from_ptr(text) }.to_str().unwrap().to_owned() }";
    macro_follows(body, &LINKINGS, &|world, follows| {
        preloaded(world, "one", "one.so");
        preloaded(world, "other", "other.so");
        let paths = ["one.so", "other.so"].map(|name| world.path(name).into_os_string().into_string().unwrap());
        let (one, other) = ([("LD_PRELOAD", paths[0].as_str())], [("LD_PRELOAD", paths[1].as_str())]);
        follows(&[(&|| (), &[]), (&|| (), &one), (&|| (), &other)]);
    });
}

#[test]
fn a_library_that_the_search_path_puts_first() {
    let body = "let o = std::process::Command::new(\"./asks\").output().unwrap();
        assert!(o.status.success(), \"{o:?}\"); String::from_utf8(o.stdout).unwrap()";
    macro_follows(body, CARGOS, &|world, follows| {
        world.write(&[("p/a/.keep", ""), ("p/b/.keep", "")]);
        gcc(world, "int answer(void) { return 1; }", "-shared -fPIC -o p/a/libanswer.so");
        gcc(world, "int answer(void) { return 2; }", "-shared -fPIC -o p/b/libanswer.so");
        let source = "int answer(void); int main(void) { printf(\"%d\", answer()); return 0; }";
        gcc(world, source, "-o p/asks -Lp/a -lanswer -Wl,-rpath,$ORIGIN/a -Wl,--enable-new-dtags");
        let dir = world.path("p/b").into_os_string().into_string().unwrap();
        let env = [("LD_LIBRARY_PATH", dir.as_str())];
        follows(&[(&|| (), &[]), (&|| (), &env)]);
    });
}

#[test]
fn a_static_program_cannot_be_watched() {
    let body = "String::from_utf8(std::process::Command::new(\"./st\").output().unwrap().stdout).unwrap()";
    let arrange = |world: &World| {
        world.write(&[("p/data/f", "one")]);
        let source = "int main(void) { char b[9] = {0}; read(open(\"data/f\", 0), b, 8); puts(b); return 0; }";
        gcc(world, source, "-static -o p/st");
    };
    macro_is_not_stored(body, &arrange, "unobserved_program");
}

#[test]
fn a_macro_that_asks_a_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().flatten().for_each(|mut peer| drop(peer.write_all(b"said"))));
    let body = format!(
        "let mut s = std::net::TcpStream::connect((\"127.0.0.1\", {port})).unwrap(); let mut t = String::new();
        std::io::Read::read_to_string(&mut s, &mut t).unwrap(); t"
    );
    macro_is_not_stored(&body, &|_| (), "opened_socket");
}

#[test]
fn a_macro_that_asks_a_local_server() {
    let world = World::new();
    let listener = UnixListener::bind(world.path("sock")).unwrap();
    std::thread::spawn(move || {
        listener.incoming().flatten().for_each(|mut peer| {
            let _ = peer.read(&mut [0; 1]).and_then(|_| peer.write_all(b"said"));
        });
    });
    let body = format!(
        "let mut s = std::os::unix::net::UnixStream::connect({:?}).unwrap(); let mut t = String::new();
        std::io::Write::write_all(&mut s, b\"?\").unwrap(); std::io::Read::read_to_string(&mut s, &mut t).unwrap(); t",
        world.path("sock")
    );
    macro_is_not_stored(&body, &|_| (), "opened_socket");
}

#[test]
fn a_macro_that_reads_the_clock() {
    let body = "std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos().to_string()";
    macro_is_not_stored(body, &|_| (), "read_clock");
    let body = "String::from_utf8(std::process::Command::new(\"date\").arg(\"+%N\").output().unwrap().stdout).unwrap()";
    macro_is_not_stored(body, &|_| (), "read_clock");
}

#[test]
fn a_macro_that_reads_what_the_kernel_says_anew() {
    macro_is_not_stored("std::fs::read_to_string(\"/proc/uptime\").unwrap()", &|_| (), "read_kernel_file");
}

#[test]
fn a_macro_that_appends_to_a_file() {
    let body = "use std::io::Write; let mut f = std::fs::File::options().append(true).open(\"data/log\").unwrap();
        f.write_all(b\"x\").unwrap(); String::new()";
    let world = World::new();
    write_macro(&world, body, LINKINGS[0]);
    settle(&|| world.write(&[("p/data/log", "")]));
    for length in 1..=3 {
        run(&mut app(&world, true));
        assert_eq!(fs::read(world.path("p/data/log")).unwrap().len(), length, "{}", world.log());
    }
    assert_eq!((world.total("hits"), world.total("stored")), (0, 0), "{}", reasons(&world));
}

#[test]
fn a_macro_that_counts_in_a_file() {
    let body = "let n: u32 = std::fs::read_to_string(\"data/n\").unwrap().parse().unwrap();
        std::fs::write(\"data/n\", (n + 1).to_string()).unwrap(); n.to_string()";
    let world = World::new();
    write_macro(&world, body, LINKINGS[0]);
    settle(&|| world.write(&[("p/data/n", "0")]));
    for round in 0..3 {
        run(&mut app(&world, true));
        assert_eq!(stdout(&mut world.command(world.path("p/out/app"))), round.to_string(), "{}", world.log());
    }
    assert_eq!(world.total("stored"), 0, "{}", reasons(&world));
}

#[test]
fn a_macro_that_makes_what_may_be_there() {
    for body in [
        "std::fs::create_dir(\"data/made\").is_ok().to_string()",
        "std::fs::File::create_new(\"data/made\").is_ok().to_string()",
        "std::os::unix::fs::symlink(\"x\", \"data/made\").is_ok().to_string()",
    ] {
        let world = World::new();
        write_macro(&world, body, LINKINGS[0]);
        for there in [false, true, true, false] {
            settle(&|| {
                world.remove("p/data/made");
                if there {
                    world.write(&[("p/data/made", "")]);
                }
            });
            world.remove("p/out");
            run(&mut app(&world, true));
            let said = stdout(&mut world.command(world.path("p/out/app")));
            assert_eq!(said, (!there).to_string(), "{body}\n{}", world.log());
            assert!(fs::symlink_metadata(world.path("p/data/made")).is_ok());
        }
    }
}

#[test]
fn a_library_that_a_macro_needs() {
    for (before, after) in [(&[][..], &["b"][..]), (&["a"], &["b", "a"]), (&["b"], &["a"])] {
        let world = World::new();
        let body = "extern \"C\" { fn answer() -> i32; } unsafe { answer() }.to_string()";
        for (dir, number) in [("a", 1), ("b", 2)] {
            world.write(&[(&format!("p/{dir}/.keep"), "")]);
            let source = format!("int answer(void) {{ return {number}; }}");
            gcc(&world, &source, &format!("-shared -fPIC -o p/{dir}/libanswer.so"));
        }
        let link = "-L native=a -l dylib=answer -C link-arg=-Wl,-rpath,$ORIGIN/a,--enable-new-dtags";
        write_macro(&world, body, &format!("-C prefer-dynamic {link}"));
        let path =
            |dirs: &[&str]| dirs.iter().map(|dir| world.path("p").join(dir).display().to_string()).collect::<Vec<_>>();
        let (before, after) = (path(before).join(":"), path(after).join(":"));
        let compile = Compile {
            world: &world,
            command: &|cached| app(&world, cached),
            out: "p/out",
            program: "p/out/app",
            messages: true,
        };
        compile.follows(&[(&|| (), &[("LD_LIBRARY_PATH", &before)]), (&|| (), &[("LD_LIBRARY_PATH", &after)])]);
    }
}

#[test]
fn a_macro_that_removes_a_file() {
    let body = "std::fs::remove_file(\"data/once\").is_ok().to_string()";
    let world = World::new();
    write_macro(&world, body, LINKINGS[0]);
    for there in [true, false, true, false, true] {
        if there {
            settle(&|| world.write(&[("p/data/once", "")]));
        }
        world.remove("p/out");
        run(&mut app(&world, true));
        assert!(!world.path("p/data/once").exists(), "{}", world.log());
        assert_eq!(stdout(&mut world.command(world.path("p/out/app"))), there.to_string(), "{}", world.log());
    }
}
