//! What the machine says to a macro or a script: the number of processors, limits, users and names are inputs, what is
//! another answer each time keeps a result from being stored, and what only seeds hash tables is nothing.

mod fixture;
mod harness;

use std::fs;

use fixture::{Compile, LINKINGS, State, app, macro_is_not_stored, settle, write_macro};
use harness::{CLIENT, World, run};

/// Answers of the C library's functions, and what changes them for a process.
const INPUTS: &[(&str, &str)] = &[
    ("std::thread::available_parallelism().map_or(0, |n| n.get()).to_string()", "taskset -c 0"),
    (
        "extern \"C\" { fn getrlimit(r: i32, a: *mut [u64; 2]) -> i32; } let mut a = [0; 2];
         unsafe { getrlimit(7, &mut a) }; a[0].to_string()",
        "prlimit --nofile=512:",
    ),
    ("extern \"C\" { fn sysconf(n: i32) -> i64; } unsafe { sysconf(4) }.to_string()", "prlimit --nofile=512:"),
    ("std::fs::read_to_string(\"/proc/self/limits\").unwrap()", "prlimit --nofile=512:"),
];

const INPUTS_OF_ROOT: &[(&str, &str)] = &[
    ("extern \"C\" { fn getgid() -> u32; } unsafe { getgid() }.to_string()", "setpriv --regid=1 --clear-groups"),
    (
        "extern \"C\" { fn getgroups(n: i32, g: *mut u32) -> i32; } unsafe { getgroups(0, std::ptr::null_mut()) }.to_string()",
        "setpriv --groups=1,2,3",
    ),
    (
        "extern \"C\" { fn getgrgid(g: u32) -> *const *const std::ffi::c_char; fn getgid() -> u32; }
         unsafe { std::ffi::CStr::from_ptr(*getgrgid(getgid())) }.to_str().unwrap().to_owned()",
        "setpriv --regid=1 --clear-groups",
    ),
];

fn are_followed(rows: &[(&str, &str)]) {
    for (body, prefix) in rows {
        for linking in LINKINGS {
            let world = World::new();
            write_macro(&world, body, linking);
            let command = |cached: bool| {
                let words = fs::read_to_string(world.path("prefix")).unwrap();
                let inner = app(&world, cached);
                let mut words = words.split_whitespace().map(str::to_owned).chain(["env".to_owned()]);
                let mut command = world.command(words.next().unwrap());
                command.args(words).arg(inner.get_program()).args(inner.get_args()).current_dir(world.path("p"));
                command
            };
            let compile =
                Compile { world: &world, command: &command, out: "p/out", program: "p/out/app", messages: true };
            let states: [&dyn Fn(); 2] = [&|| world.write(&[("prefix", "")]), &|| world.write(&[("prefix", prefix)])];
            println!("{body} {linking}");
            compile.follows(&states.map(|state| -> State<'_> { (state, &[]) }));
        }
    }
}

#[test]
fn what_stays_is_an_input() {
    are_followed(INPUTS);
}

#[test]
#[ignore = "needs root: other groups"]
fn who_asks_is_an_input() {
    are_followed(INPUTS_OF_ROOT);
}

/// Another host has another name, in a namespace of its own.
#[test]
#[ignore = "needs root: another host's name"]
fn the_name_of_the_host_is_an_input() {
    let body = "extern \"C\" { fn gethostname(n: *mut u8, l: usize) -> i32; } let mut n = [0_u8; 65];
        unsafe { gethostname(n.as_mut_ptr(), 64) }; String::from_utf8_lossy(&n).trim_matches('\\0').to_owned()";
    for body in [body, "std::fs::read_to_string(\"/proc/sys/kernel/hostname\").unwrap()"] {
        let world = World::new();
        settle(&|| write_macro(&world, body, LINKINGS[0]));
        let answer = |host: &str| {
            world.remove("p/out");
            let inner = app(&world, true);
            let mut command = world.command("unshare");
            command.args(["-u", "sh", "-c", &format!("hostname {host}; exec \"$@\""), "sh"]);
            run(command.arg(inner.get_program()).args(inner.get_args()).current_dir(world.path("p")));
            harness::stdout(&mut world.command(world.path("p/out/app")))
        };
        run(&mut world.zcache("start"));
        for host in ["one", "two", "one", "two"] {
            assert_eq!(answer(host), host, "{}", world.log());
        }
    }
}

#[test]
fn what_is_another_answer_each_time_is_not_stored() {
    let c = "extern \"C\" { fn getloadavg(a: *mut f64, n: i32) -> i32; fn sysinfo(a: *mut u64) -> i32;
        fn statvfs(p: *const u8, a: *mut u64) -> i32; fn times(a: *mut i64) -> i64; fn getrusage(w: i32, a: *mut i64) -> i32;
        fn sysconf(n: i32) -> i64; } let mut a = [0_u64; 64]; let p = a.as_mut_ptr();";
    for body in [
        "std::process::id().to_string()",
        "std::os::unix::process::parent_id().to_string()",
        &format!("{c} unsafe {{ getloadavg(p.cast(), 1) }}; a[0].to_string()"),
        &format!("{c} unsafe {{ sysinfo(p) }}; a[0].to_string()"),
        &format!("{c} unsafe {{ statvfs(c\"/\".as_ptr().cast(), p) }}; a[3].to_string()"),
        &format!("{c} unsafe {{ times(p.cast()) }}.to_string()"),
        &format!("{c} unsafe {{ getrusage(0, p.cast()) }}; a[1].to_string()"),
        &format!("{c} unsafe {{ sysconf(86) }}.to_string()"),
    ] {
        println!("{body}");
        macro_is_not_stored(body, &|_| (), "asked_system");
    }
    for file in ["/proc/meminfo", "/proc/self/stat", "/proc/loadavg", "/proc/self/environ"] {
        println!("{file}");
        macro_is_not_stored(&format!("std::fs::read_to_string({file:?}).unwrap()"), &|_| (), "read_kernel_file");
    }
    let random = "use std::io::Read; let mut b = [0; 4]; std::fs::File::open(\"/dev/urandom\").unwrap().read_exact(&mut b).unwrap(); format!(\"{b:?}\")";
    macro_is_not_stored(random, &|_| (), "read_kernel_file");
}

#[test]
fn what_shows_in_nothing_is_stored() {
    for body in [
        "std::collections::HashMap::from([(1, 2)])[&1].to_string()",
        "std::thread::spawn(|| 7).join().unwrap().to_string()",
        "std::env::current_exe().unwrap().ends_with(\"rustc\").to_string()",
        "std::process::Command::new(\"true\").status().unwrap().success().to_string()",
    ] {
        let world = World::new();
        write_macro(&world, body, LINKINGS[0]);
        settle(&|| ());
        for _ in 0..2 {
            world.remove("p/out");
            run(&mut app(&world, true));
        }
        assert_eq!(world.total("hits"), 1, "{body}: {}\n{}", fixture::reasons(&world), world.log());
    }
}

/// A script in front of a compiler that asks, and one that only begins.
#[test]
fn scripts_are_followed_and_stored() {
    for (shell, define, prefix) in [
        ("/bin/sh", "$(nproc)", "taskset -c 0"),
        ("/bin/sh", "$(ulimit -n)", "prlimit --nofile=512:"),
        ("/bin/dash", "1", "env"),
    ] {
        let world = World::new();
        world.write(&[("p/x.c", "int x = N;\n")]);
        world.script("p/my-gcc", &format!("#!{shell}\nexec /usr/bin/gcc -DN={define} \"$@\"\n"));
        settle(&|| ());
        let compile = |prefix: &str, cached: bool| {
            world.remove("p/x.s");
            let client = if cached { CLIENT } else { "" };
            let line = format!("{prefix} {client} ./my-gcc -S x.c");
            run(world.command("sh").args(["-c", &line]).current_dir(world.path("p")));
            fs::read(world.path("p/x.s")).unwrap()
        };
        for prefix in ["env", prefix, "env", prefix] {
            assert_eq!(compile(prefix, false), compile(prefix, true), "{shell} {define}: {}", world.log());
        }
        assert!(world.total("hits") >= 2, "{shell} {define}: {}\n{}", fixture::reasons(&world), world.log());
    }
}
