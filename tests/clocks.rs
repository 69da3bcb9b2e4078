//! Clocks: programs that ask for the time for purposes of their own, and scripts that ask for it themselves. The first
//! are stored, the second never; git is asked for what its files say, and they are followed.

mod fixture;
mod harness;
mod matrix;

use std::process::Command;

use fixture::{Compile, rustc_in, settle, write_macro};
use harness::{World, run};
use matrix::Matrix;

/// Scripts that stand before gcc, and whether what comes of them is stored.
const SCRIPTS: &[(&str, &str, bool)] = &[
    ("bash", "#!/bin/bash\nexec gcc \"$@\"\n", true),
    ("bash that waits", "#!/bin/bash\ngcc \"$@\"\nexit $?\n", true),
    ("bash by env", "#!/usr/bin/env bash\nset -euo pipefail\nexec gcc \"$@\"\n", true),
    ("bash with options", "#!/bin/bash -eu\nexec gcc \"$@\"\n", true),
    ("bash as sh", "#!tools/sh\nexec gcc \"$@\"\n", true),
    ("bash with subshells", "#!/bin/bash\na=($(echo \"$*\" | tr x x))\nexec gcc \"${a[@]}\"\n", true),
    ("bash behind dash", "#!/bin/dash\nexec bash ../tools/other \"$@\"\n", true),
    ("bash, the date", "#!/bin/bash\nexec gcc -DT=$(date +%s) \"$@\"\n", false),
    ("bash, its clock", "#!/bin/bash\nexec gcc -DT=$EPOCHSECONDS \"$@\"\n", false),
    ("bash, its finer clock", "#!/bin/bash\nexec gcc -DT=${EPOCHREALTIME%.*} \"$@\"\n", false),
    ("bash, its age", "#!/bin/bash\nexec gcc -DT=$SECONDS \"$@\"\n", false),
    ("bash, printf", "#!/bin/bash\nexec gcc -DT=$(printf '%(%s)T') \"$@\"\n", false),
    ("bash, random numbers", "#!/bin/bash\nexec gcc -DT=$RANDOM \"$@\"\n", false),
    ("bash, its clock in a subshell", "#!/bin/bash\nexec gcc -DT=$(echo $EPOCHSECONDS) \"$@\"\n", false),
    ("bash, its clock in another script", "#!/bin/bash\n. ./clock\nexec gcc -DT=$t \"$@\"\n", false),
    ("bash, its clock on a command line", "#!/bin/dash\nexec bash -c 'gcc -DT=$EPOCHSECONDS \"$@\"' _ \"$@\"\n", false),
    ("dash", "#!/bin/dash\nexec gcc \"$@\"\n", true),
    ("dash, the date", "#!/bin/dash\nexec gcc -DT=$(date +%s) \"$@\"\n", false),
    ("python", "#!/usr/bin/python3\nimport os, sys\nos.execvp('gcc', ['gcc', *sys.argv[1:]])\n", true),
    ("python behind sh", "#!/bin/sh\nexec python3 -E ../tools/other.py \"$@\"\n", true),
    (
        "python, its clock",
        "#!/usr/bin/python3\nimport os, sys, time\nos.execvp('gcc', ['gcc', '-DT=%d' % time.time(), *sys.argv[1:]])\n",
        false,
    ),
    (
        "python, its date",
        "#!/usr/bin/python3\nimport os, sys, datetime\nt = datetime.datetime.now().second
os.execvp('gcc', ['gcc', '-DT=%d' % t, *sys.argv[1:]])\n",
        false,
    ),
    ("perl", "#!/usr/bin/perl -w\nuse strict; use File::Basename;\nexec 'gcc', @ARGV or die;\n", true),
    ("perl that waits", "#!/usr/bin/env perl\nexit(system('gcc', @ARGV) >> 8);\n", true),
    ("perl, its clock", "#!/usr/bin/perl\nexec 'gcc', '-DT=' . time, @ARGV or die;\n", false),
    ("perl, its beginning", "#!/usr/bin/perl\nexec 'gcc', \"-DT=$^T\", @ARGV or die;\n", false),
    ("perl, a file's age", "#!/usr/bin/perl\nexec 'gcc', '-DT=' . int(86400 * -M $0), @ARGV or die;\n", false),
    (
        "perl, its clock on a command line",
        "#!/bin/sh\nexec perl -e 'exec q(gcc), q(-DT=) . time, @ARGV' -- \"$@\"\n",
        false,
    ),
];

/// Scripts that an interpreter is given by another one.
const OTHERS: [(&str, &str); 2] = [
    ("tools/other", "exec gcc \"$@\"\n"),
    ("tools/other.py", "import os, sys\nos.execvp('gcc', ['gcc', *sys.argv[1:]])\n"),
];

const FILES: &[(&str, &str)] = &[("x.c", "#ifdef T\nint t = T;\n#endif\nint x;\n"), ("clock", "t=$EPOCHSECONDS\n")];

#[test]
#[ignore = "needs bash, python and perl"]
fn an_interpreters_own_beginning_is_not_the_projects() {
    let mut failed = Vec::new();
    for (name, text, stored) in SCRIPTS {
        let matrix = Matrix::new(FILES);
        // Away from where objects appear, since Python lists the directory of its script.
        matrix
            .world
            .script("tools/cc", &text.replace("#!tools/sh", &format!("#!{}", matrix.world.path("tools/sh").display())));
        run(matrix.world.command("cp").args(["/bin/bash"]).arg(matrix.world.path("tools/sh")));
        matrix.world.write(&OTHERS);
        let line = "%../tools/cc -c x.c -o out/x.o";
        for round in 0..2 {
            matrix.fresh(line, true);
            let status = matrix.world.status();
            let counts = (status["totals"]["hits"].as_u64(), status["totals"]["stored"].as_u64());
            let want = if *stored { (Some(round), Some(1)) } else { (Some(0), Some(0)) };
            if counts != want {
                failed.push(format!("{name}, {round}: {counts:?} rather than {want:?}: {}", matrix.why()));
                break;
            }
        }
    }
    assert!(failed.is_empty(), "{} scripts: {}", failed.len(), failed.join("\n"));
}

fn git(world: &World, arguments: &str) {
    let mut command = world.command("git");
    command.env("HOME", world.path("home")).current_dir(world.path("p")).args(["-c", "user.name=n"]);
    command.args(["-c", "user.email=e", "-c", "init.defaultBranch=main"]);
    run(command.args(arguments.split_whitespace()));
}

/// A macro that asks git, and a script that does, follow what is committed.
#[test]
#[ignore = "needs git"]
fn git_says_what_its_files_say() {
    for asked in ["describe --always --dirty", "rev-parse HEAD", "log -1 --format=%H", "rev-parse --abbrev-ref HEAD"] {
        let world = World::new();
        let list: Vec<String> = asked.split(' ').map(|word| format!("{word:?}")).collect();
        let body = format!(
            "let o = std::process::Command::new(\"git\").args([{}]).output().unwrap(); assert!(o.status.success(), \"{{o:?}}\");
            String::from_utf8(o.stdout).unwrap()",
            list.join(", ")
        );
        write_macro(&world, &body, "-C prefer-dynamic");
        world.write(&[("p/.gitignore", "out\n"), ("p/a", "1")]);
        git(&world, "init -q");
        git(&world, "add .");
        let command = |cached: bool| -> Command {
            let mut command = rustc_in(
                &world,
                "p",
                cached,
                "app.rs --edition 2021 --extern mac=libmac.so --crate-name app --out-dir out",
            );
            command.env("HOME", world.path("home"));
            command
        };
        let compile = Compile { world: &world, command: &command, out: "p/out", program: "p/out/app", messages: true };
        let mut known = Vec::new();
        for (number, change) in
            ["commit -q -m one", "commit -q -m two --allow-empty", "checkout -q -b other"].iter().enumerate()
        {
            settle(&|| git(&world, change));
            let bare = compile.answer(false, &[]);
            for round in 0..3 {
                let before = world.status();
                assert_eq!(compile.answer(true, &[]), bare, "{asked}, {change}, {round}: {}", world.log());
                let counts = world.since(&before);
                assert!(round < 2 || counts.hits == 1, "{asked}, {change}: {counts:?} {}", world.log());
            }
            assert!(
                number == 0 || known.last() != Some(&bare) || number == 2 || asked.contains("abbrev"),
                "{asked}, {change}"
            );
            known.push(bare);
        }
    }
}

/// A git that is asked how long ago something was.
#[test]
#[ignore = "needs git"]
fn git_that_counts_from_now_is_not_stored() {
    let matrix = Matrix::new(FILES);
    matrix.world.script(
        "cc",
        "#!/bin/dash\nexec gcc \"-DT=\\\"$(git -C ../p log -1 --format=%ar --since=yesterday)\\\"\" -Dint='const char *' \"$@\"\n",
    );
    matrix.world.write(&[("p/a", "1")]);
    git(&matrix.world, "init -q");
    git(&matrix.world, "add .");
    git(&matrix.world, "commit -q -m one");
    for round in 1..=2 {
        matrix.fresh("%../cc -c x.c -o out/x.o", true);
        let status = matrix.world.status();
        let counts = (&status["totals"]["stored"], &status["refusal_reasons"]["read_clock"]);
        assert_eq!(counts, (&0.into(), &round.into()), "{}", matrix.why());
    }
}
