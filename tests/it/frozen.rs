//! What a reader of format 1 accepts and refuses, for ever: plain objects byte by byte, each with what it says.
//!
//! The bytes are made here by hand (docs/FORMAT.md, sections 1, 7, 9, 10 and 12), not by the library, and stand in
//! `tests/golden/v1/frozen.txt`, so that the independent reader is asked the same. A line is added for each addition to the
//! format; one that is there is never changed. Add new ones with `cargo test --test it make_frozen -- --ignored`.

use siltstone::entry::{Content, Entry};
use siltstone::format::{TreePage, decode_list, decode_page, decode_trailer};
use siltstone::repo::{Snapshot, SnapshotSource};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

/// What a refused object says.
const REFUSED: &str = "refused";

pub fn file() -> PathBuf {
    crate::golden::folder().join("frozen.txt")
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

// --- what objects say, in words that both readers have -------------------------------------------------------------

fn of_entry(entry: &Entry) -> String {
    let meta = &entry.meta;
    let mut text = format!(
        "{} kind={} mode={:o} owner={}:{} names={}:{} time={}.{:09} size={} links={} flags={} partial={} target={} device={}:{}",
        hex(&entry.name),
        entry.kind as u8,
        meta.mode,
        meta.uid,
        meta.gid,
        meta.user,
        meta.group,
        meta.modified.seconds,
        meta.modified.nanoseconds,
        entry.size,
        entry.link_group,
        meta.flags,
        u8::from(entry.is_partial),
        hex(&entry.target),
        entry.device.0,
        entry.device.1,
    );
    if entry.is_doubtful {
        text.push_str(" doubtful");
    }
    if entry.is_mounted {
        text.push_str(" mounted");
    }
    if meta.lacks_xattrs {
        text.push_str(" lacks-attributes");
    }
    for xattr in &meta.xattrs {
        write!(text, " xattr={}:{}", hex(&xattr.name), hex(&xattr.value)).expect("text grows");
    }
    for hole in &entry.holes {
        write!(text, " hole={}+{}", hole.offset, hole.length).expect("text grows");
    }
    match &entry.content {
        Content::Empty => {}
        Content::Inline(bytes) => write!(text, " inline={}", hex(bytes)).expect("text grows"),
        Content::Chunks(ids) => ids.iter().for_each(|id| write!(text, " id={}", id.to_hex()).expect("text grows")),
        Content::List { depth, root } => write!(text, " depth={depth} id={}", root.to_hex()).expect("text grows"),
        Content::Tree(root) => write!(text, " id={}", root.to_hex()).expect("text grows"),
    }
    text
}

fn of_snapshot(snapshot: &Snapshot) -> String {
    let sources = snapshot.sources.iter().map(|source| match source {
        SnapshotSource::Tree { path } => format!("tree={}", hex(&path.0)),
        SnapshotSource::Stream { name, command } => {
            format!("stream={}:{}", hex(&name.0), command.as_deref().unwrap_or_default())
        }
        SnapshotSource::Unknown(unknown) => format!("unknown={}", unknown.kind),
    });
    let warnings = snapshot.warnings.iter().map(|warning| format!("warning={}:{}", hex(&warning.path.0), warning.what));
    let mut words = vec![
        format!("id={}", snapshot.id.to_hex()),
        format!("started={}.{:09}", snapshot.started.seconds, snapshot.started.nanoseconds),
        format!("host={} user={} job={}", snapshot.host, snapshot.user, snapshot.job),
        format!("tags={}", snapshot.tags.join(",")),
        format!("root={}", snapshot.root.to_hex()),
        format!("files={} bytes={}", snapshot.totals.files, snapshot.totals.bytes),
    ];
    words.extend(sources);
    words.extend(warnings);
    words.push(format!("warnings={}", snapshot.warnings_count));
    words.extend(snapshot.lacks_trusted.then(|| "lacks-trusted".to_owned()));
    words.join(" ")
}

/// What an object says to today's reader.
fn said(kind: &str, bytes: &[u8]) -> String {
    let list = |level| {
        decode_list(bytes, level).map(|page| {
            let lengths = page.bytes_below.unwrap_or_default();
            let lengths = lengths.iter().map(|length| format!(":{length}")).chain(std::iter::repeat(String::new()));
            page.ids
                .iter()
                .zip(lengths)
                .map(|(id, length)| format!("{}{length}", id.to_hex()))
                .collect::<Vec<_>>()
                .join(" ")
        })
    };
    let text = match kind {
        "page" => decode_page(bytes).map(|page| match page {
            TreePage::Entries(entries) => entries.iter().map(of_entry).collect::<Vec<_>>().join(" | "),
            TreePage::Inner { pages, .. } => {
                pages.iter().map(|(name, id)| format!("{}={}", hex(name), id.to_hex())).collect::<Vec<_>>().join(" ")
            }
        }),
        "list0" => list(0),
        "list1" => list(1),
        "trailer" => decode_trailer(bytes).map(|(kind, frames)| {
            let frames = frames.iter().map(|frame| {
                let lengths: Vec<_> = frame.chunks.iter().map(|(_, length)| length.to_string()).collect();
                format!("{}:{}:{}", frame.stored, frame.raw, lengths.join(","))
            });
            [format!("{kind:?}").to_lowercase()].into_iter().chain(frames).collect::<Vec<_>>().join(" ")
        }),
        "snapshot" => Snapshot::decode(bytes).map(|snapshot| of_snapshot(&snapshot)),
        _ => panic!("objects of the kind {kind} are not known here"),
    };
    text.unwrap_or_else(|_| REFUSED.to_owned())
}

// --- objects, made by hand -----------------------------------------------------------------------------------------

fn number(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn signed(value: i64) -> Vec<u8> {
    number((value << 1 ^ value >> 63) as u64)
}

fn counted(bytes: &[u8]) -> Vec<u8> {
    [number(bytes.len() as u64), bytes.to_vec()].concat()
}

fn tagged(values: &[(u64, &[u8])]) -> Vec<u8> {
    let values = values.iter().flat_map(|(tag, value)| [number(*tag), counted(value)]);
    [number(values.clone().count() as u64 / 2)].into_iter().chain(values).collect::<Vec<_>>().concat()
}

fn id(number: u8) -> Vec<u8> {
    vec![number; 24]
}

/// One entry of a page, column by column.
#[derive(Clone, Default)]
struct Row {
    name: Vec<u8>,
    kind_and_form: u8,
    owner: u64,
    /// After that of the entry before.
    seconds: i64,
    nanoseconds: u32,
    size: Option<u64>,
    extras: u8,
    values: Vec<u8>,
    first: Vec<u8>,
    ids: Vec<u8>,
}

fn row(name: &str, kind: u8, form: u8) -> Row {
    Row { name: name.into(), kind_and_form: form << 4 | kind, ..Row::default() }
}

/// The table of owners: one of them without names.
fn owners() -> Vec<u8> {
    let ada = [number(0o755), number(1000), number(100), counted(b"ada"), counted(b"users")].concat();
    let nobody = [number(0o4711), number(4_294_967_294), number(0), counted(b""), counted(b"")].concat();
    [number(2), ada, nobody].concat()
}

fn page_with(rows: &[Row], owners: Vec<u8>, tail: Vec<u8>) -> Vec<u8> {
    let column = |of: &dyn Fn(&Row) -> Vec<u8>| rows.iter().flat_map(of).collect::<Vec<u8>>();
    [
        b"T\x01\x00".to_vec(),
        number(rows.len() as u64),
        column(&|row| [number(0), counted(&row.name)].concat()),
        column(&|row| vec![row.kind_and_form]),
        owners,
        column(&|row| number(row.owner)),
        column(&|row| signed(row.seconds)),
        column(&|row| row.nanoseconds.to_le_bytes().to_vec()),
        column(&|row| row.size.map(number).unwrap_or_default()),
        column(&|row| vec![row.extras]),
        column(&|row| row.values.clone()),
        column(&|row| row.first.clone()),
        column(&|row| row.ids.clone()),
        tail,
    ]
    .concat()
}

fn page(rows: &[Row], tail: Vec<u8>) -> Vec<u8> {
    page_with(rows, owners(), tail)
}

/// One entry of each kind, each extra and each form of content.
fn rows() -> Vec<Row> {
    vec![
        Row { seconds: 1_700_000_000, nanoseconds: 999_999_999, ids: id(1), ..row("a directory", 2, 4) },
        Row { extras: 64, values: tagged(&[(1, b"")]), ..row("a partial one", 2, 0) },
        Row { extras: 2, values: [number(8), number(1 << 20)].concat(), ..row("block", 4, 0) },
        Row { extras: 2, values: [number(1), number(3)].concat(), ..row("character", 5, 0) },
        Row { owner: 1, seconds: -1_700_000_001, ..row("fifo", 6, 0) },
        Row {
            extras: 4,
            values: 7_u64.to_le_bytes().to_vec(),
            size: Some(3),
            first: counted(b"abc"),
            ..row("inline", 1, 1)
        },
        Row { extras: 1, values: counted(b"../to"), ..row("link", 3, 0) },
        Row { size: Some(1 << 40), first: vec![2], ids: id(2), ..row("list", 1, 3) },
        Row { size: Some(0), ..row("nothing", 1, 0) },
        Row {
            size: Some(100_000),
            extras: 8 | 16 | 32,
            values: [
                number(2),
                counted(b"user.a"),
                counted(b""),
                counted(b"user.b"),
                counted(b"\0b"),
                number(2),
                number(0),
                number(4096),
                number(8192),
                number(4096),
                number(0x10),
            ]
            .concat(),
            first: number(2),
            ids: [id(3), id(4)].concat(),
            ..row("sparse", 1, 2)
        },
        Row { size: Some(5), first: counted(b"12345"), ..row("stream", 7, 1) },
    ]
}

/// A page of one entry that was changed.
fn one(change: impl FnOnce(&mut Row)) -> Vec<u8> {
    let mut row = Row { size: Some(3), first: counted(b"abc"), ..row("f", 1, 1) };
    change(&mut row);
    page(&[row], Vec::new())
}

fn pages() -> Vec<(&'static str, Vec<u8>)> {
    let later: &[(u64, &[u8])] = &[(7, b"later"), (300, b"")];
    let with_tags =
        |values: &[(u64, &[u8])]| page(&[Row { extras: 64, values: tagged(values), ..row("d", 2, 0) }], Vec::new());
    let with_stream_mark = |tag: u64| {
        let values = tagged(&[(tag, b"")]);
        page(&[Row { size: Some(3), first: counted(b"abc"), extras: 64, values, ..row("s", 7, 1) }], Vec::new())
    };
    let mut shared = page(&[row("aa", 6, 0), row("ab", 6, 0)], Vec::new());
    // The second name as one byte that it shares with the first and one of its own.
    let second = shared.windows(4).position(|part| part == b"\0\x02ab").expect("it is there");
    shared.splice(second..second + 4, *b"\x01\x01b");
    vec![
        ("of every kind of entry", page(&rows(), Vec::new())),
        ("without entries", page_with(&[], number(0), Vec::new())),
        ("with tagged values of a newer writer", page(&rows(), tagged(later))),
        ("with an empty list of tagged values", page(&rows(), tagged(&[]))),
        ("with a name that shares its beginning", shared),
        ("with a tagged value of an entry that a newer writer knows", with_tags(&[(1, b""), (9, b"later")])),
        ("with nothing but unknown tagged values of an entry", with_tags(&[(4, b"later"), (1 << 40, b"")])),
        ("with a mark of a doubtful file", one(|row| (row.extras, row.values) = (64, tagged(&[(2, b"")])))),
        ("of one file", one(|_| ())),
        (
            "of a file of the largest size",
            page(&[Row { size: Some((1 << 63) - 1), first: vec![6], ids: id(1), ..row("f", 1, 3) }], Vec::new()),
        ),
        ("with a kind of entry that is not known", one(|row| row.kind_and_form = 0x18)),
        ("with no kind of entry", one(|row| row.kind_and_form = 0x10)),
        ("with a form of content that is not known", one(|row| row.kind_and_form = 0x51)),
        ("with a directory's content in a file", one(|row| row.kind_and_form = 0x41)),
        ("with an extra that is not known", one(|row| row.extras = 128)),
        ("with a size beyond 63 bits", one(|row| row.size = Some(1 << 63))),
        ("with too many nanoseconds", one(|row| row.nanoseconds = 1_000_000_000)),
        ("with an owner that is not in the table", one(|row| row.owner = 2)),
        ("with a name of two dots", one(|row| row.name = b"..".to_vec())),
        ("with a slash in a name", one(|row| row.name = b"a/b".to_vec())),
        ("with an empty name", one(|row| row.name.clear())),
        ("with tagged values of an entry out of order", with_tags(&[(9, b""), (1, b"")])),
        ("with a mark of a partial directory that has a value", with_tags(&[(1, b"x")])),
        ("with a mark of a mounted directory", with_tags(&[(1, b""), (3, b"")])),
        ("with marks of a mounted file", one(|row| (row.extras, row.values) = (64, tagged(&[(2, b""), (3, b"")])))),
        (
            "with a mark of a mounted link",
            page(
                &[Row { extras: 65, values: [counted(b"to"), tagged(&[(3, b"")])].concat(), ..row("l", 3, 0) }],
                Vec::new(),
            ),
        ),
        ("with a mark of a mounted directory that has a value", with_tags(&[(3, b"x")])),
        ("with a mark of a directory that lacks attributes", with_tags(&[(5, b"")])),
        (
            "with a mark of a link that lacks attributes",
            page(
                &[Row { extras: 65, values: [counted(b"to"), tagged(&[(5, b"")])].concat(), ..row("l", 3, 0) }],
                Vec::new(),
            ),
        ),
        ("with a mark of a stream that lacks attributes", with_stream_mark(5)),
        ("with a mark of a directory that lacks attributes that has a value", with_tags(&[(5, b"x")])),
        (
            "with a mark of a doubtful file that has a value",
            one(|row| (row.extras, row.values) = (64, tagged(&[(2, b"x")]))),
        ),
        ("with a mark of a doubtful file on a directory", with_tags(&[(2, b"")])),
        ("with a mark of a doubtful file on a stream", with_stream_mark(2)),
        ("with a mark of a mounted file on a stream", with_stream_mark(3)),
        ("with names out of order", page(&[row("b", 6, 0), row("a", 6, 0)], Vec::new())),
        ("with a name twice", page(&[row("a", 6, 0), row("a", 6, 0)], Vec::new())),
        ("with bytes after its tagged values", page(&rows(), [tagged(later), vec![0]].concat())),
        ("with tagged values out of order", page(&rows(), tagged(&[(300, b""), (7, b"")]))),
        ("of another version", [b"T\x02".to_vec(), one(|_| ())[2..].to_vec()].concat()),
        ("of another magic number", [b"U".to_vec(), one(|_| ())[1..].to_vec()].concat()),
    ]
}

fn inner(level: u8, names: &[&str], tail: Vec<u8>) -> Vec<u8> {
    let ids = (1..=names.len()).flat_map(|number| id(number as u8)).collect();
    let list = names.iter().flat_map(|name| counted(name.as_bytes())).collect();
    [vec![b'T', 1, level], number(names.len() as u64), list, ids, tail].concat()
}

fn inner_pages() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("of two pages", inner(1, &["a", "m"], Vec::new())),
        ("of the highest level", inner(8, &["a"], Vec::new())),
        ("of pages, with tagged values of a newer writer", inner(1, &["a", "m"], tagged(&[(1, b"later")]))),
        ("of no page", inner(1, &[], Vec::new())),
        ("of a level that is too high", inner(9, &["a"], Vec::new())),
        ("of pages out of order", inner(1, &["m", "a"], Vec::new())),
        ("of a page without its id", inner(1, &["a"], Vec::new())[..10].to_vec()),
        ("of pages, with bytes after them", inner(1, &["a"], vec![0, 0])),
    ]
}

fn lists() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let list = |level: u8, items: &[Vec<u8>]| [vec![b'L', 1, level], items.concat()].concat();
    let item = |number: u8, bytes: u64| [id(number), bytes.to_le_bytes().to_vec()].concat();
    vec![
        ("list0", "of two chunks", list(0, &[id(1), id(2)])),
        ("list0", "of one chunk twice", list(0, &[id(1), id(1)])),
        ("list0", "of no chunk", list(0, &[])),
        ("list0", "that is cut", list(0, &[id(1), id(2)[..23].to_vec()])),
        ("list0", "of another level", list(1, &[item(1, 5)])),
        ("list0", "of another version", [b"L\x02\x00".to_vec(), id(1)].concat()),
        ("list1", "of two lists", list(1, &[item(1, 70_000), item(2, 1)])),
        ("list1", "of a list without content", list(1, &[item(1, 0)])),
        ("list1", "of more bytes than a file can have", list(1, &[item(1, 1 << 62), item(2, 1 << 62)])),
        ("list1", "of another level", list(0, &[id(1)])),
    ]
}

fn trailers() -> Vec<(&'static str, Vec<u8>)> {
    let frames = [
        number(2),
        number(116),
        number(100),
        number(2),
        number(60),
        number(40),
        number(17),
        number(1),
        number(1),
        number(1),
    ]
    .concat();
    let trailer = |flags: u8, rest: &[u8]| [number(1), vec![flags], frames.clone(), rest.to_vec()].concat();
    let wrong = [number(1), number(116), number(100), number(1), number(99)].concat();
    vec![
        ("of content, without padding", trailer(0, b"")),
        ("of trees, with padding", trailer(1, &[0; 70])),
        (
            "with tagged values of a newer writer, then padding",
            trailer(0, &[tagged(&[(5, b"later")]), vec![0; 9]].concat()),
        ),
        ("of another version", [number(2), vec![0], frames.clone()].concat()),
        ("with lengths that do not add up", [number(1), vec![0], wrong].concat()),
        ("that is cut", trailer(0, b"")[..8].to_vec()),
    ]
}

fn snapshots() -> Vec<(&'static str, Vec<u8>)> {
    let least = r#""version":1,"id":"000102030405060708090a0b0c0d0e0f","started":{"seconds":1700000000,"nanoseconds":5},"ended":{"seconds":1700000001,"nanoseconds":0},"host":"h","program":"p","sources":[],"root":"010101010101010101010101010101010101010101010101","totals":{},"warnings_count":0"#;
    let with = |more: &str| format!("{{{least}{more}}}").into_bytes();
    let changed = |from: &str, to: &str| {
        assert!(least.contains(from), "{from}");
        format!("{{{}}}", least.replace(from, to)).into_bytes()
    };
    let sources = r#"[{"kind":"tree","path":"/a","later":1},{"kind":"tree","path":{"base64":"L/8="}},{"kind":"stream","name":"/s","command":"c"},{"kind":"stream","name":"/i"},{"kind":"postgres","cluster":"main"}]"#;
    vec![
        ("with no more than it must have", with("")),
        (
            "with all that it may have",
            with(
                r#","user":"u","job":"j","tags":["a","b"],"warnings":[{"path":"/w","what":"changed"}],"all_sources":{"count":9,"trees":"00"},"features":[]"#,
            ),
        ),
        ("with fields of a newer writer", with(r#","later":{"deep":[1,2,{"x":null}]},"kept_until":"2030""#)),
        (
            "with sources of each kind, and of one that is not known",
            changed(r#""sources":[]"#, &format!(r#""sources":{sources}"#)),
        ),
        ("with counts", changed(r#""totals":{}"#, r#""totals":{"files":3,"bytes":99,"later":1}"#)),
        ("with offsets of clocks", changed(r#""nanoseconds":5}"#, r#""nanoseconds":5,"offset":-3600}"#)),
        ("with an origin", with(&format!(r#","origin":"{}""#, "5a".repeat(32)))),
        ("that lacks attributes of administrators", with(r#","lacks_trusted":true"#)),
        ("that says that it lacks no attributes of administrators", with(r#","lacks_trusted":false"#)),
        ("with a number of what it lacks", with(r#","lacks_trusted":1"#)),
        (
            "that ended at the last moment",
            changed(r#""ended":{"seconds":1700000001"#, r#""ended":{"seconds":253402207200"#),
        ),
        ("that ended too late", changed(r#""ended":{"seconds":1700000001"#, r#""ended":{"seconds":253402207201"#)),
        ("with too many nanoseconds", changed(r#""nanoseconds":5}"#, r#""nanoseconds":1000000000}"#)),
        ("with an offset of a day", changed(r#""nanoseconds":5}"#, r#""nanoseconds":5,"offset":86400}"#)),
        ("without totals", changed(r#""totals""#, r#""totale""#)),
        ("with a feature that is not known", with(r#","features":["later"]"#)),
        ("of another version", changed(r#""version":1"#, r#""version":2"#)),
        ("without a root", changed(r#""root""#, r#""other""#)),
        ("with a root that is no id", changed("0101010101", "01")),
        ("that is no JSON", least.as_bytes().to_vec()),
    ]
}

/// All objects: their kind, what is special about them, their bytes.
fn objects() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let of =
        |kind, objects: Vec<(&'static str, Vec<u8>)>| objects.into_iter().map(move |(name, bytes)| (kind, name, bytes));
    of("page", pages())
        .chain(of("page", inner_pages()))
        .chain(lists())
        .chain(of("trailer", trailers()))
        .chain(of("snapshot", snapshots()))
        .collect()
}

/// The lines of the file: what they are about, the bytes in hexadecimal, what these say.
fn frozen() -> BTreeMap<(String, String), (String, String)> {
    let text = fs::read_to_string(file()).unwrap_or_default();
    let line = |line: &str| {
        let parts: Vec<&str> = line.split('\t').collect();
        let [kind, name, bytes, says] = parts[..] else { panic!("a line has four parts: {line}") };
        ((kind.to_owned(), name.to_owned()), (bytes.to_owned(), says.to_owned()))
    };
    text.lines().map(line).collect()
}

#[test]
#[ignore = "adds lines to what is frozen"]
fn make_frozen() {
    let mut lines = frozen();
    for (kind, name, bytes) in objects() {
        let says = said(kind, &bytes);
        lines.entry((kind.to_owned(), name.to_owned())).or_insert((hex(&bytes), says));
    }
    let text = lines.iter().map(|((kind, name), (bytes, says))| format!("{kind}\t{name}\t{bytes}\t{says}\n"));
    fs::write(file(), text.collect::<String>()).expect("it is written");
}

#[test]
fn what_is_frozen_is_read_and_refused_as_ever() {
    let lines = frozen();
    assert!(lines.len() >= 60, "{} lines", lines.len());
    let refused = lines.values().filter(|(_, says)| says == REFUSED).count();
    assert!(refused >= 30 && refused + 20 <= lines.len(), "{refused} of {} are refused", lines.len());
    for ((kind, name), (bytes, says)) in &lines {
        let bytes = data_encoding::HEXLOWER.decode(bytes.as_bytes()).expect("hexadecimal digits");
        assert_eq!(&said(kind, &bytes), says, "a {kind} {name}");
    }
    // The bytes are those that the document asks for.
    for (kind, name, bytes) in objects() {
        let line = lines.get(&(kind.to_owned(), name.to_owned()));
        let (frozen, _) = line.unwrap_or_else(|| panic!("run make_frozen: there is no line for a {kind} {name}"));
        assert_eq!(frozen, &hex(&bytes), "a {kind} {name}: it must never change");
    }
}
