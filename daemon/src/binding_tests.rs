//! Tests of the rule by which results are bound.

use super::*;

const ONE: &[u8] = b"/home/u/one";

fn roots() -> Roots {
    Roots::new([Root::plain(Role::Cwd, [ONE, b"/build"].concat()), Root::plain(Role::Workspace, ONE.to_vec())])
        .with_output(b"/home/u/one/build/x", b"x")
}

struct Case {
    call: Invocation,
    exposed: Exposed,
    seen: Distilled,
    found: Found,
}

fn case(change: impl FnOnce(&mut Case)) -> Vec<Role> {
    let cwd = [ONE, b"/build"].concat();
    let call = Invocation { pwd: cwd.clone(), cwd, argv: vec![b"cc".into()], ..Invocation::default() };
    let mut case = Case { call, exposed: Exposed::default(), seen: Distilled::default(), found: Found::default() };
    change(&mut case);
    bound(&roots(), &case.call, &case.exposed, &case.seen, &case.found).into_iter().collect()
}

const ALL: [Role; 4] = [Role::Cwd, Role::Workspace, Role::OutDir, Role::OutName];

#[test]
fn each_way_into_an_output_binds() {
    let source = || [ONE, b"/x.c"].concat();
    let of_source = [Role::Workspace];
    let of_env = |case: &mut Case| {
        case.call.env = crate::invocation::Env::new(vec![[b"OUT_DIR=".as_slice(), ONE].concat()]);
        case.seen.env_by_role.insert(b"OUT_DIR".to_vec());
    };
    let own_path = Marks { own_path: true, ..Marks::default() };
    let absolute = Marks { absolute: true, ..Marks::default() };
    let cases: [(&str, Vec<Role>, &[Role]); 12] = [
        ("nothing", case(|_| {}), &[]),
        ("a path alone", case(|c| c.exposed.paths.push(source())), &[]),
        ("a value", case(|c| c.exposed.values.push(source())), &of_source),
        (
            "a path and a word for it",
            case(|c| (c.exposed.paths.push(source()), c.found.words = own_path).1),
            &of_source,
        ),
        ("a word alone", case(|c| c.found.words = own_path), &[]),
        ("a header by its path from the root", case(|c| c.found.words = absolute), &ALL),
        ("a variable", case(of_env), &of_source),
        ("an answer to the project", case(|c| c.seen.shown.extend([source()])), &of_source),
        ("a stranger", case(|c| (c.exposed.all.push(source()), c.seen.strangers = true).1), &ALL[1..]),
        ("bytes", case(|c| c.found.named.extend([Role::Cwd])), &ALL[..1]),
        ("hidden bytes", case(|c| c.found.opaque = true), &ALL),
        ("a way upwards", case(|c| c.found.climbs = true), &ALL),
    ];
    for (what, got, want) in cases {
        assert_eq!(got, want, "{what}");
    }
}

#[test]
fn every_spelling_is_searched_for() {
    let all = vec![b"-fdebug-prefix-map=/home/u=/T".to_vec(), b"-Wa,--debug-prefix-map=/home/=~,-W".into()];
    let exposed = Exposed { all, mangles: true, ..Exposed::default() };
    let roots = Roots::new([Root::plain(Role::Workspace, b"/home/u/o\"n\xc3".into())]);
    let needles = needles(&roots, &exposed, false);
    for text in [
        b"/home/u/o\"n\xc3".as_slice(),
        b"/T/o\"n\xc3",
        b"~/u/o\"n\xc3",
        b"#home#u#o\"n\xc3",
        b"_home_u_o_n_",
        b"/home/u/o\\\"n\\303",
        b"/home/u/o\\22n\\C3",
        b"/o\"n\xc3/",
    ] {
        let shown = String::from_utf8_lossy(text);
        assert!(needles.iter().any(|needle| needle.bytes == text), "{shown} of {needles:?}");
    }
}

#[test]
fn a_map_of_the_whole_root_leaves_nothing_to_find() {
    let arguments = [b"--remap-path-prefix".to_vec(), [ONE, b"=."].concat()];
    let roots = Roots::new([Root::plain(Role::Workspace, ONE.to_vec())]);
    assert_eq!(images(ONE, &arguments), Vec::<Vec<u8>>::new());
    let exposed = Exposed { all: arguments.into(), ..Exposed::default() };
    let of = |strangers| needles(&roots, &exposed, strangers);
    assert!(of(false).iter().all(|needle| needle.bytes.starts_with(b"/home")));
    assert!(of(true).iter().any(|needle| needle.bytes == b"/one/"), "a wrapper may have mapped what is above");
}
