//! The socket by which an instance is seen and steered (contract, section 11).
//!
//! A client gets one answer and is let go. Nobody is waited for: who has not asked within a second is let
//! go, an answer is written as far as it finds room, and where many come at once each turn of the loop
//! takes only some of them.

pub mod place;
pub mod protocol;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit};

use crate::error::Error;
use crate::exit::Exit;
use crate::lock::{Claim, Lock};
use crate::sys::peer;
use crate::text::Quoted;
use place::Place;
use protocol::{LONGEST_REQUEST, Request};

/// So many are taken in at once, before everything else has its turn.
const AT_ONCE: usize = 8;
/// So many may be connected, but never more than an eighth of the descriptors that there may be:
/// supervision needs some, too. The next ones wait outside.
const CLIENTS: usize = 128;
/// So long a client may take to ask.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tokens of the poll: the listener's, and from there on the clients'.
const LISTENER: usize = 0;

/// The socket, and who is connected.
pub struct Control {
    listener: UnixListener,
    socket: PathBuf,
    /// Held for as long as we live; and released after the socket is gone.
    lock: Lock,
    registry: Registry,
    /// The listener's token; those of the clients follow.
    first: usize,
    clients: BTreeMap<usize, Client>,
    most: usize,
    next: usize,
    /// There are more to be taken in.
    pub has_more: bool,
    /// There may be more, for whom there was no place.
    is_full: bool,
    /// There may be more, for whom there was no descriptor, though nobody had one of ours.
    again: Option<Instant>,
}

struct Client {
    stream: UnixStream,
    by: i32,
    state: Asks,
}

enum Asks {
    /// This came so far; the rest has to come until then.
    Reading(Vec<u8>, Instant),
    /// It has asked, and is to be answered or to wait.
    Asked,
    /// It waits for this.
    Waiting(Request, u64),
}

/// Who asks what.
pub struct Asked {
    /// For [`Control::answer`].
    pub client: usize,
    /// Its process id; 0 where it is not of our pid namespace.
    pub by: i32,
    /// What.
    pub request: Request,
}

impl Control {
    /// Claims `name`, and listens; its tokens begin with `first`. Where there is no directory for it, or
    /// `is_default` and it is taken: None, and one line to whom it may concern.
    ///
    /// # Errors
    /// [`Error::NameTaken`].
    pub fn open(
        name: &str,
        is_default: bool,
        registry: &Registry,
        first: usize,
    ) -> Result<Option<Self>, Error> {
        let without = |why: &str| log::debug!("no control socket error={}", Quoted::text(why));
        let Some(place) = Place::of_the_environment() else {
            without("neither SUPERVISOR_RUNTIME_DIR nor XDG_RUNTIME_DIR is set");
            return Ok(None);
        };
        let claim = place.prepare().and_then(|()| place.claim_patiently(name));
        let lock = match claim {
            Ok(Claim::Ours(lock)) => lock,
            Ok(Claim::Held(_)) if is_default => {
                without("the name is taken");
                return Ok(None);
            }
            Ok(Claim::Held(holder)) => {
                return Err(Error::NameTaken {
                    name: name.to_owned(),
                    holder,
                });
            }
            Err(error) => {
                without(&error.to_string());
                return Ok(None);
            }
        };
        match Self::listen(&place.socket(name), lock, registry, first) {
            Ok(control) => Ok(Some(control)),
            Err(error) => {
                without(&error.to_string());
                Ok(None)
            }
        }
    }

    fn listen(socket: &Path, lock: Lock, registry: &Registry, first: usize) -> io::Result<Self> {
        // What needs a descriptor comes first, for then there is no socket to be left behind.
        let registry = registry.try_clone()?;
        let mut listener = UnixListener::bind(socket)?;
        if let Err(error) =
            registry.register(&mut listener, Token(first + LISTENER), Interest::READABLE)
        {
            let _ = fs::remove_file(socket);
            return Err(error);
        }
        Ok(Self {
            listener,
            socket: socket.to_owned(),
            lock,
            registry,
            first,
            clients: BTreeMap::new(),
            most: most_clients(),
            next: first + LISTENER + 1,
            has_more: false,
            is_full: false,
            again: None,
        })
    }

    /// Whether this token is one of ours.
    #[must_use]
    pub fn owns(&self, token: Token) -> bool {
        token.0 >= self.first
    }

    /// What is asked by those who are `ready`, and by some who are new.
    pub fn take(&mut self, now: Instant, ready: &[Token]) -> Vec<Asked> {
        let mut asked = Vec::new();
        for token in ready {
            if token.0 == self.first + LISTENER {
                self.has_more = true;
            } else {
                asked.extend(self.read(token.0));
            }
        }
        self.drop_late(now);
        self.has_more |= self.again.take_if(|again| *again <= now).is_some();
        if self.has_more {
            self.accept(now, &mut asked);
        }
        asked
    }

    fn accept(&mut self, now: Instant, asked: &mut Vec<Asked>) {
        for _ in 0..AT_ONCE {
            if self.clients.len() >= self.most && !self.make_room() {
                self.is_full = true;
                self.has_more = false;
                return;
            }
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    // Where there are no descriptors, one will be free when a client goes.
                    let is_over = error.kind() == io::ErrorKind::WouldBlock;
                    self.is_full = !is_over;
                    self.has_more = !is_over && self.make_room();
                    let is_alone = !is_over && self.clients.is_empty() && !self.has_more;
                    self.again = is_alone.then_some(now + PATIENCE);
                    return;
                }
            };
            let Some(by) = who_may_ask(&stream) else {
                continue;
            };
            let client = self.next;
            self.next += 1;
            let state = Asks::Reading(Vec::new(), now + PATIENCE);
            self.clients.insert(client, Client { stream, by, state });
            // What it says later, and its end, are heard of.
            asked.extend(self.read(client));
            self.register(client);
        }
    }

    /// Lets the one go that has taken longest to ask.
    fn make_room(&mut self) -> bool {
        let reading = |client: &Client| matches!(client.state, Asks::Reading(..));
        let slowest = self.clients.iter().find(|(_, client)| reading(client));
        let slowest = slowest.map(|(client, _)| *client);
        slowest.is_some_and(|client| self.remove(client).is_some())
    }

    fn register(&mut self, client: usize) {
        if let Some(found) = self.clients.get_mut(&client) {
            let stream = &mut found.stream;
            let interest = Interest::READABLE;
            if self
                .registry
                .register(stream, Token(client), interest)
                .is_err()
            {
                self.remove(client);
            }
        }
    }

    /// Reads what a client has to say. One that says nothing that makes sense is told so, and let go.
    fn read(&mut self, client: usize) -> Option<Asked> {
        let found = self.clients.get_mut(&client)?;
        let Asks::Reading(line, _) = &mut found.state else {
            // There is nothing more to say, but it may be gone.
            let mut bytes = [0; LONGEST_REQUEST];
            while found.stream.read(&mut bytes).is_ok_and(|count| count > 0) {}
            if has_hung_up(&found.stream) {
                self.remove(client);
            }
            return None;
        };
        let mut bytes = [0; LONGEST_REQUEST];
        let why = loop {
            match found.stream.read(&mut bytes) {
                Ok(0) => break None,
                Ok(count) => line.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(_) => break None,
            }
            if let Some(end) = line.iter().position(|byte| *byte == b'\n')
                && end < LONGEST_REQUEST
            {
                match Request::parse(&line[..end]) {
                    Ok(request) => {
                        let by = found.by;
                        found.state = Asks::Asked;
                        return Some(Asked {
                            client,
                            by,
                            request,
                        });
                    }
                    Err(why) => break Some(why),
                }
            }
            if line.len() >= LONGEST_REQUEST {
                break Some("the request is too long");
            }
        };
        match why {
            Some(why) => self.answer(client, &protocol::refused(why)),
            None => drop(self.remove(client)),
        }
        None
    }

    /// Answers a client and lets it go. What finds no room is lost: it does not read.
    pub fn answer(&mut self, client: usize, line: &str) {
        if let Some(mut found) = self.remove(client) {
            let _ = found.stream.write(line.as_bytes());
        }
    }

    fn remove(&mut self, client: usize) -> Option<Client> {
        // Somebody may be waiting for the place.
        self.has_more |= std::mem::take(&mut self.is_full);
        self.clients.remove(&client)
    }

    /// Has a client wait for what `request` asks: of a run after `run`, where that matters.
    pub fn wait(&mut self, client: usize, request: Request, run: u64) {
        if let Some(found) = self.clients.get_mut(&client) {
            found.state = Asks::Waiting(request, run);
        }
    }

    /// Who waits, and for what.
    #[must_use]
    pub fn waiting(&self) -> Vec<(usize, Request, u64)> {
        let waiting = self.clients.iter();
        let waiting = waiting.filter_map(|(client, found)| match found.state {
            Asks::Waiting(request, run) => Some((*client, request, run)),
            Asks::Reading(..) | Asks::Asked => None,
        });
        waiting.collect()
    }

    /// When somebody's patience is at its end: ours.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let all = self.clients.values();
        let all = all.filter_map(|client| match client.state {
            Asks::Reading(_, until) => Some(until),
            Asks::Waiting(..) | Asks::Asked => None,
        });
        all.chain(self.again).min()
    }

    fn drop_late(&mut self, now: Instant) {
        let late = self
            .clients
            .iter()
            .filter(|(_, client)| match client.state {
                Asks::Reading(_, until) => until <= now,
                Asks::Waiting(..) | Asks::Asked => false,
            });
        for client in late.map(|(client, _)| *client).collect::<Vec<_>>() {
            self.remove(client);
        }
    }

    /// What stands in a directory that was made anew is another's.
    fn unlist(&self) {
        if self.lock.is_current() {
            let _ = fs::remove_file(&self.socket);
        }
    }

    /// The end. Who waits for it is answered, and sees that we are gone when the connection closes, which
    /// it does with this process.
    pub fn close(mut self, exit: Exit) {
        for (client, request, _) in self.waiting() {
            let line = match request {
                Request::Stop => protocol::ended(exit),
                Request::Status | Request::Restart | Request::Pause | Request::Resume => {
                    protocol::refused("it has ended")
                }
            };
            if let Some(mut found) = self.clients.remove(&client) {
                let _ = found.stream.write(line.as_bytes());
                std::mem::forget(found.stream);
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.unlist();
    }
}

/// Whether it can't be answered any more. One that has only said that it will say no more still can.
fn has_hung_up(stream: &UnixStream) -> bool {
    let mut asked = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    let known = poll(&mut asked, PollTimeout::ZERO);
    let events = asked[0].revents().unwrap_or(PollFlags::empty());
    known.is_ok() && events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR)
}

fn most_clients() -> usize {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    usize::try_from(limit / 8).map_or(CLIENTS, |part| part.clamp(1, CLIENTS))
}

/// The process id of a client, if it is one of ours or root's (unix(7), `SO_PEERCRED`).
fn who_may_ask(stream: &UnixStream) -> Option<i32> {
    let (user, by) = peer(stream).ok()?;
    (user == 0 || user == nix::unistd::geteuid().as_raw()).then_some(by)
}
