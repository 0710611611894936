use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex},
};

use libp2p_core::{
    Multiaddr, Transport,
    multiaddr::Protocol,
    transport::{DialOpts, TransportError},
};

use super::{
    Config, Error, lock,
    lookup::{Found, Lookups, Name},
};

/// Maximum number of lookups of one dial, which ends cycles of names. As in libp2p's own transport.
pub(super) const MAX_LOOKUPS: usize = 32;

/// Maximum number of addresses that one dial tries. As in libp2p's own transport.
pub(super) const MAX_DIALS: usize = 16;

/// Maximum number of addresses from one lookup. As in libp2p's own transport for `/dnsaddr`; no more can be dialled
/// anyway.
const MAX_FOUND: usize = 16;

pub(super) fn has_name(addr: &Multiaddr) -> bool {
    addr.iter().any(|protocol| Name::of(&protocol).is_some())
}

/// Looks up names and dials, depth first and in the order of the responses, until there is a connection or nothing is
/// left.
pub(super) async fn dial<T>(
    inner: Arc<Mutex<T>>,
    config: Config,
    addr: Multiaddr,
    opts: DialOpts,
) -> Result<T::Output, Error<T::Error>>
where
    T: Transport,
{
    let lookups = Lookups::new(config);
    let (mut lookups_left, mut dials_left) = (MAX_LOOKUPS, MAX_DIALS);
    let mut pending = VecDeque::from([addr]);
    let mut errors = Vec::new();
    let mut too_many_lookups = false;
    while let Some(addr) = pending.pop_front() {
        let Some((index, name)) = first_name(&addr) else {
            if dials_left == 0 {
                errors.push(Error::TooManyDials);
                break;
            }
            // The lock is not held while connecting.
            let dial = lock(&inner).dial(addr, opts);
            match dial {
                Ok(dial) => {
                    dials_left -= 1;
                    match dial.await {
                        Ok(output) => return Ok(output),
                        Err(error) => errors.push(Error::Transport(error)),
                    }
                }
                Err(TransportError::MultiaddrNotSupported(addr)) => errors.push(Error::MultiaddrNotSupported(addr)),
                Err(TransportError::Other(error)) => errors.push(Error::Transport(error)),
            }
            continue;
        };
        if lookups_left == 0 {
            too_many_lookups = true;
            continue;
        }
        lookups_left -= 1;
        match lookups.find(&name).await {
            Ok(found) => {
                for addr in insert(&addr, index, found).into_iter().rev() {
                    pending.push_front(addr);
                }
            }
            Err(source) => errors.push(Error::Resolve { name: name.to_string(), source }),
        }
    }
    if too_many_lookups {
        errors.push(Error::TooManyLookups);
    }
    Err(Error::Dial(errors))
}

fn first_name(addr: &Multiaddr) -> Option<(usize, Name)> {
    addr.iter().enumerate().find_map(|(index, protocol)| Some((index, Name::of(&protocol)?)))
}

/// Replaces the name at `index` of `addr` by the results of its lookup.
fn insert(addr: &Multiaddr, index: usize, found: Found) -> Vec<Multiaddr> {
    let before = || addr.iter().take(index);
    let after: Multiaddr = addr.iter().skip(index + 1).collect();
    match found {
        Found::Hosts(ips) => ips
            .into_iter()
            .take(MAX_FOUND)
            .map(|ip| before().chain([Protocol::from(ip)]).chain(after.iter()).collect())
            .collect(),
        // Complete addresses. The part after the name selects among them.
        Found::Addresses(addresses) => addresses
            .into_iter()
            .filter(|address| address.ends_with(&after))
            .take(MAX_FOUND)
            .map(|address| before().chain(address.iter()).collect())
            .collect(),
    }
}

/// Displays the errors of a dial in one line.
pub(super) struct Listed<'a, E>(pub(super) &'a [Error<E>]);

impl<E: fmt::Display> fmt::Display for Listed<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, others)) = self.0.split_first() else {
            return f.write_str("no record fits the dialled address");
        };
        write!(f, "no address could be reached: {first}")?;
        others.iter().try_for_each(|error| write!(f, "; {error}"))
    }
}
