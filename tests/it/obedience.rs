//! One signal ends any run, whatever it waits for: storage, a command, a file; and no other signal kills one.

use crate::person::{Person, said};
use crate::server::{Server, answer};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Far more than the two seconds that it may take, on whatever machine; far less than what is waited for otherwise.
const SOON: Duration = Duration::from_secs(20);
/// Longer than anything here takes on a busy machine: what is not there by then never comes, and fails its test.
const HANGS: Duration = Duration::from_secs(120);
const AWS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];

/// The signals that end a run. SIGHUP does so unless these tests, and so the runs that they start, ignore it (under nohup).
fn stopping() -> &'static [Signal] {
    let is_hangup_ignored = has_signal("/proc/self/status", "SigIgn:", Signal::HUP) == Some(true);
    if is_hangup_ignored { &[Signal::INT, Signal::TERM] } else { &[Signal::INT, Signal::TERM, Signal::HUP] }
}

/// Whether a signal is in one of the masks of a process; none when the process has ended.
fn has_signal(status: &str, mask: &str, signal: Signal) -> Option<bool> {
    let status = std::fs::read_to_string(status).ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix(mask))?;
    Some(u64::from_str_radix(mask.trim(), 16).ok()? & (1 << (signal.as_raw() - 1)) != 0)
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id() as i32).unwrap(), signal).unwrap();
}

#[track_caller]
fn assert_interrupted(child: Child, begun: Instant, case: &str) {
    let pid = Pid::from_raw(child.id() as i32).unwrap();
    let (ended, end) = mpsc::channel();
    // It reads all output: a run that waits for a reader would not end.
    let waiting = std::thread::spawn(move || ended.send(child.wait_with_output().unwrap()));
    let Ok(output) = end.recv_timeout(HANGS) else {
        kill_process(pid, Signal::KILL).unwrap();
        panic!("{case}: it did not end");
    };
    waiting.join().unwrap().unwrap();
    let said = said(output);
    assert_eq!(said.code, 130, "{case}: {}", said.err);
    assert!(said.err.contains("interrupted"), "{case}: {}", said.err);
    assert!(begun.elapsed() < SOON, "{case}: {:?}", begun.elapsed());
}

fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until a command has made a file, as a sign that it has come that far.
#[track_caller]
fn wait_for(path: &Path) -> String {
    let begun = Instant::now();
    loop {
        match std::fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
            _ => assert!(begun.elapsed() < HANGS, "{} does not come", path.display()),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a process has a handler for SIGINT.
#[track_caller]
fn wait_until_attended(child: &Child) {
    let begun = Instant::now();
    let status = format!("/proc/{}/status", child.id());
    while has_signal(&status, "SigCgt:", Signal::INT) != Some(true) {
        assert!(begun.elapsed() < HANGS, "nobody attends to signals");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn never(connection: &mut TcpStream) {
    // Until the other side goes.
    let _ = connection.read(&mut [0]);
}

fn trickle(connection: &mut TcpStream) {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nETag: \"a\"\r\n\r\n";
    let _ = connection.write_all(head);
    while connection.write_all(b"x").is_ok() {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn half(connection: &mut TcpStream) {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nETag: \"a\"\r\n\r\nabc";
    let _ = connection.write_all(head);
    never(connection);
}

/// Alone of all verbs it died of the signal, without a word.
#[test]
fn measuring_the_machine_is_interrupted_as_all_verbs_are() {
    let person = Person::new();
    for how in stopping() {
        let child = start(&mut person.command(&["bench", "machine", "--rounds", "100000"]));
        wait_until_attended(&child);
        let begun = Instant::now();
        signal(&child, *how);
        assert_interrupted(child, begun, "bench machine");
    }
}

/// One Ctrl-C on a store that never answered was ignored for minutes.
#[test]
fn a_store_that_does_not_answer_keeps_no_run_that_is_to_end() {
    let verbs: [&[&str]; 7] = [
        &["snapshots"],
        &["backup", "source"],
        &["restore", "latest", "--target", "out"],
        &["ls", "latest"],
        &["stats"],
        &["bench", "storage"],
        &["init"],
    ];
    type Way = (&'static str, fn(&mut TcpStream));
    let ways: [Way; 3] = [("never", never), ("half", half), ("trickle", trickle)];
    let person = Person::new();
    person.make_source();
    for (name, way) in ways {
        let server = Server::start(move |_, connection| way(connection));
        for (number, words) in verbs.iter().enumerate() {
            let mut command = person.command(words);
            command.env("SILT_REPOSITORY", server.bucket()).env("SILT_PASSWORD", "p").envs(AWS);
            let child = start(&mut command);
            server.wait_until_asked();
            let begun = Instant::now();
            signal(&child, stopping()[number % stopping().len()]);
            assert_interrupted(child, begun, &format!("{name}: {words:?}"));
            server.forget();
        }
    }
}

/// Ctrl-C while a store answered 503 took effect only after all retries.
#[test]
fn a_store_that_refuses_for_now_is_waited_for_and_left_when_asked_to() {
    let person = Person::new();
    let server = Server::start(|request, connection| answer(connection, request, "503 Service Unavailable", ""));
    let mut command = person.command(&["snapshots"]);
    command.env("SILT_REPOSITORY", server.bucket()).env("SILT_PASSWORD", "p").envs(AWS);
    let mut child = start(&mut command);
    // The word of it comes with the first failure.
    let mut told = [0; 400];
    let length = child.stderr.as_mut().unwrap().read(&mut told).unwrap();
    let told = String::from_utf8_lossy(&told[..length]).into_owned();
    assert!(told.starts_with("note: cannot ") && told.contains("trying again for up to 15 min"), "{told}");
    let begun = Instant::now();
    signal(&child, Signal::INT);
    assert_interrupted(child, begun, "503");

    // And without patience, it ends at once.
    let mut command = person.command(&["snapshots", "--retry-for", "0"]);
    command.env("SILT_REPOSITORY", server.bucket()).env("SILT_PASSWORD", "p").envs(AWS);
    let ended = said(command.output().unwrap()).ends_with(1);
    assert!(!ended.err.contains("trying again"), "{}", ended.err);
}

/// A command that ignores signals outlived the run that had started it.
#[test]
fn commands_and_files_that_never_end_keep_no_run_and_no_command_is_left() {
    let person = Person::new();
    person.make_source();
    person.silt(&["backup", "source"]).ends_with(0);
    let fifo = person.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let stubborn = "trap '' TERM INT HUP; echo $$ > started.new; mv started.new started; sleep 600; sleep 600";
    let stream = format!("x={stubborn}");
    let cases: [&[&str]; 3] = [
        &["backup", "--stream", &stream],
        &["snapshots", "--password-command", stubborn],
        &["backup", "source", "--password-command", stubborn],
    ];
    for (words, stop) in cases.iter().zip(stopping().iter().cycle()) {
        let _ = std::fs::remove_file(person.path("started"));
        let child = start(&mut person.command(words));
        let shell = wait_for(&person.path("started"));
        let begun = Instant::now();
        signal(&child, *stop);
        assert_interrupted(child, begun, &format!("{words:?}"));
        let shell = Pid::from_raw(shell.parse().unwrap()).unwrap();
        while test_kill_process(shell).is_ok() {
            assert!(begun.elapsed() < SOON, "{words:?}: the command lives on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    // A list of paths without a writer: opening it never returns.
    let child = start(&mut person.command(&["backup", "--files-from", "fifo"]));
    wait_until_attended(&child);
    let begun = Instant::now();
    signal(&child, Signal::INT);
    assert_interrupted(child, begun, "a list");
    // The next run is none the worse.
    person.silt(&["backup", "source"]).ends_with(0);
}

/// `kill -USR1`, by which other programs show their progress, killed a backup; so did the end of a session under nohup.
#[test]
fn signals_that_ask_for_nothing_kill_nothing() {
    let person = Person::new();
    person.make_source();
    assert!(Command::new("mkfifo").arg(person.path("fifo")).status().unwrap().success());
    let silt = person.command::<&str>(&[]).get_program().to_owned();
    let silt = silt.to_str().unwrap();
    let script = format!("trap '' HUP; exec {silt} backup source --stream 'x=echo > started; cat fifo' --no-progress");
    let mut shell = person.command::<&str>(&[]);
    let environment: Vec<_> =
        shell.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
    shell = Command::new("/bin/sh");
    shell.arg("-c").arg(script).current_dir(person.home.path()).stdin(Stdio::null());
    for (name, value) in environment {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let mut child = start(&mut shell);
    wait_for(&person.path("started"));
    for harmless in [Signal::HUP, Signal::USR2, Signal::USR1] {
        signal(&child, harmless);
    }
    let mut told = [0; 300];
    let length = child.stderr.as_mut().unwrap().read(&mut told).unwrap();
    let told = String::from_utf8_lossy(&told[..length]).into_owned();
    assert!(told.starts_with("silt: ") && told.contains(" files, "), "{told}");
    std::fs::write(person.path("fifo"), "whole").unwrap();
    said(child.wait_with_output().unwrap()).ends_with(0);
    person.silt(&["restore", "latest", "--target", "out"]).ends_with(0);
    assert_eq!(std::fs::read(person.path("out/x")).unwrap(), b"whole");
}
