//! Ports: which are free, and holding them until the servers take them.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, TcpListener},
    sync::{Mutex, PoisonError},
};

use rand::{TryRng as _, rngs::SysRng};

/// Where free ports are looked for: above the well-known services, below every usual ephemeral range,
/// because a client's own outgoing connection can sit on an ephemeral port.
const SEARCHED: std::ops::Range<u16> = 10_000..32_768;
/// Random places tried before the search gives up.
const ATTEMPTS: u32 = 200;

/// Why no port could be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// Somebody listens on the port.
    #[error(
        "port {port} is taken by another program: end that program, or for a new cluster choose another port, or `--port 0` for free ones"
    )]
    Taken {
        /// The port.
        port: u16,
    },
    /// The port cannot be bound for another reason.
    #[error("could not listen on port {port}")]
    Refused {
        /// The port.
        port: u16,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The last node's port would lie above 65535.
    #[error("{count} ports from {first} on reach beyond 65535: choose a lower --port")]
    Overflow {
        /// The first port.
        first: u16,
        /// Ports wanted.
        count: u16,
    },
    /// Neighbouring free ports were not found.
    #[error("found no {count} neighbouring free ports between 10000 and 32767: choose one with --port")]
    NoneFree {
        /// Ports wanted.
        count: u16,
    },
}

/// Ports that this process listens on, so that nobody else takes them before their servers start.
#[derive(Debug, Default)]
pub(crate) struct Reservation {
    held: Mutex<HashMap<u16, TcpListener>>,
}

impl Reservation {
    /// Reserves `count` neighbouring ports from `first` on; 0 means anywhere free.
    pub(crate) fn neighbours(first: u16, count: u16) -> Result<(Reservation, Vec<u16>), PortError> {
        if first != 0 {
            let last =
                first.checked_add(count.saturating_sub(1)).ok_or(PortError::Overflow { first, count })?;
            let ports: Vec<u16> = (first..=last).collect();
            return Ok((Reservation::of(&ports)?, ports));
        }
        for _ in 0..ATTEMPTS {
            let ports: Vec<u16> = (random_start(count)?..).take(usize::from(count)).collect();
            if let Ok(reservation) = Reservation::of(&ports) {
                return Ok((reservation, ports));
            }
        }
        Err(PortError::NoneFree { count })
    }

    /// Reserves exactly these ports.
    pub(crate) fn of(ports: &[u16]) -> Result<Reservation, PortError> {
        let mut held = HashMap::new();
        for port in ports.iter().copied() {
            let listener =
                TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|source| match source.kind() {
                    io::ErrorKind::AddrInUse => PortError::Taken { port },
                    _ => PortError::Refused { port, source },
                })?;
            held.insert(port, listener);
        }
        Ok(Reservation { held: Mutex::new(held) })
    }

    /// Frees `port` for the server that is about to take it.
    pub(crate) fn release(&self, port: u16) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&port);
    }
}

/// A random place, so that commands that search at the same time do not meet.
fn random_start(count: u16) -> Result<u16, PortError> {
    let random = SysRng.try_next_u32().map_err(|_| PortError::NoneFree { count })?;
    let places = u32::from(SEARCHED.end - SEARCHED.start - count);
    let offset = u16::try_from(random % places).map_err(|_| PortError::NoneFree { count })?;
    Ok(SEARCHED.start + offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_are_neighbours_below_the_ephemeral_range() {
        let (_held, ports) = Reservation::neighbours(0, 3).unwrap();
        assert_eq!(ports, [ports[0], ports[0] + 1, ports[0] + 2]);
        assert!(ports.iter().all(|port| SEARCHED.contains(port)));
    }

    #[test]
    fn a_held_port_is_taken_until_released() {
        let (held, ports) = Reservation::neighbours(0, 1).unwrap();
        assert!(matches!(Reservation::of(&ports), Err(PortError::Taken { port }) if port == ports[0]));
        held.release(ports[0]);
        assert!(Reservation::of(&ports).is_ok());
    }

    #[test]
    fn ports_do_not_wrap_around() {
        assert!(matches!(Reservation::neighbours(65_535, 2), Err(PortError::Overflow { .. })));
    }
}
