//! Reads and writes records and providers as rows.

use kadence_sqlite::rusqlite::{self, Connection, OptionalExtension, params};
use libp2p::{
    Multiaddr, PeerId,
    kad::{ProviderRecord, Record, RecordKey},
};

use super::{
    Contents, Row,
    times::{Moment, WallExpiry},
};

pub(super) fn put_record(connection: &Connection, record: &Record, moment: Moment) -> rusqlite::Result<()> {
    let Record { key, value, publisher, expires } = record;
    let publisher = publisher.map(PeerId::to_bytes);
    let expiry = expires.map(|expires| moment.to_wall(expires));
    let sum = checksum(&[key.as_ref(), value, publisher.as_deref().unwrap_or_default()], expiry);
    connection
        .prepare_cached(
            "INSERT INTO records (key, value, publisher, expires, life, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (key) DO UPDATE SET value = ?2, publisher = ?3, expires = ?4, life = ?5, checksum = ?6",
        )?
        .execute(params![
            key.as_ref(),
            value,
            publisher,
            expiry.map(|expiry| expiry.at),
            expiry.map(|expiry| expiry.left),
            sum
        ])
        .map(drop)
}

pub(super) fn put_provider(connection: &Connection, provider: &ProviderRecord, moment: Moment) -> rusqlite::Result<()> {
    let ProviderRecord { key, provider, expires, addresses } = provider;
    let provider = provider.to_bytes();
    let addresses = join(addresses);
    let expiry = expires.map(|expires| moment.to_wall(expires));
    let sum = checksum(&[key.as_ref(), &provider, &addresses], expiry);
    connection
        .prepare_cached(
            "INSERT INTO providers (key, provider, addresses, expires, life, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (key, provider) DO UPDATE SET addresses = ?3, expires = ?4, life = ?5, checksum = ?6",
        )?
        .execute(params![
            key.as_ref(),
            provider,
            addresses,
            expiry.map(|expiry| expiry.at),
            expiry.map(|expiry| expiry.left),
            sum
        ])
        .map(drop)
}

pub(super) fn remove(connection: &Connection, row: &Row) -> rusqlite::Result<()> {
    match row {
        Row::Record(key) => {
            connection.prepare_cached("DELETE FROM records WHERE key = ?1")?.execute([key.as_ref()]).map(drop)
        }
        Row::Provider(key, provider) => connection
            .prepare_cached("DELETE FROM providers WHERE key = ?1 AND provider = ?2")?
            .execute(params![key.as_ref(), provider.to_bytes()])
            .map(drop),
    }
}

/// Reads all rows. The inner error names a damaged row.
pub(super) fn read(connection: &Connection, moment: Moment) -> rusqlite::Result<Result<Contents, String>> {
    if let Some(what) = damaged_types(connection)? {
        return Ok(Err(what));
    }
    let mut contents = Contents::default();
    let mut statement = connection
        .prepare("SELECT rowid, key, expires, life, checksum, value, publisher FROM records ORDER BY rowid")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let Common { number, key, expiry, sum } = Common::of(row)?;
        let value: Vec<u8> = row.get(5)?;
        let publisher: Option<Vec<u8>> = row.get(6)?;
        let is_whole = sum == checksum(&[&key, &value, publisher.as_deref().unwrap_or_default()], expiry);
        let publisher = publisher.map(|bytes| PeerId::from_bytes(&bytes)).transpose();
        let (true, Ok(publisher)) = (is_whole, publisher) else { return Ok(Err(format!("record {number}"))) };
        let key = RecordKey::from(key);
        match alive(expiry, moment) {
            Some(expires) => contents.records.push(Record { key, value, publisher, expires }),
            None => contents.expired.push(Row::Record(key)),
        }
    }
    let mut statement = connection
        .prepare("SELECT rowid, key, expires, life, checksum, provider, addresses FROM providers ORDER BY rowid")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let Common { number, key, expiry, sum } = Common::of(row)?;
        let (provider, addresses): (Vec<u8>, Vec<u8>) = (row.get(5)?, row.get(6)?);
        let is_whole = sum == checksum(&[&key, &provider, &addresses], expiry);
        let (true, Ok(provider), Some(addresses)) = (is_whole, PeerId::from_bytes(&provider), split(&addresses)) else {
            return Ok(Err(format!("provider {number}")));
        };
        let key = RecordKey::from(key);
        match alive(expiry, moment) {
            Some(expires) => contents.providers.push(ProviderRecord { key, provider, expires, addresses }),
            None => contents.expired.push(Row::Provider(key, provider)),
        }
    }
    Ok(Ok(contents))
}

/// Returns the name of a row with a value of a wrong type. The tables are strict, but a damaged file may have any
/// bytes.
fn damaged_types(connection: &Connection) -> rusqlite::Result<Option<String>> {
    const WRONG: &str = "typeof(key) != 'blob' OR typeof(checksum) != 'integer'
        OR typeof(expires) NOT IN ('integer', 'null') OR typeof(life) != typeof(expires)";
    let find = |query: String| connection.query_row(&query, [], |row| row.get::<_, String>(0)).optional();
    let record = find(format!(
        "SELECT 'record ' || rowid FROM records
         WHERE {WRONG} OR typeof(value) != 'blob' OR typeof(publisher) NOT IN ('blob', 'null') LIMIT 1"
    ))?;
    let provider = find(format!(
        "SELECT 'provider ' || rowid FROM providers
         WHERE {WRONG} OR typeof(provider) != 'blob' OR typeof(addresses) != 'blob' LIMIT 1"
    ))?;
    Ok(record.or(provider))
}

/// First five columns of both tables.
struct Common {
    number: i64,
    key: Vec<u8>,
    expiry: Option<WallExpiry>,
    sum: i64,
}

impl Common {
    fn of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let (at, left): (Option<i64>, Option<i64>) = (row.get(2)?, row.get(3)?);
        let expiry = at.zip(left).map(|(at, left)| WallExpiry { at, left });
        Ok(Self { number: row.get(0)?, key: row.get(1)?, expiry, sum: row.get(4)? })
    }
}

/// Returns the expiry on the monotonic clock; `None` if it has passed.
#[expect(clippy::option_option, reason = "without an expiry a row never expires")]
fn alive(expiry: Option<WallExpiry>, moment: Moment) -> Option<Option<std::time::Instant>> {
    match expiry {
        None => Some(None),
        Some(expiry) => moment.to_instant(expiry).map(Some),
    }
}

/// Encodes addresses, each after its length in two bytes. Their total length is limited when they are inserted.
fn join(addresses: &[Multiaddr]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in addresses {
        if let Ok(len) = u16::try_from(address.len()) {
            bytes.extend(len.to_be_bytes());
            bytes.extend(address.as_ref());
        }
    }
    bytes
}

fn split(mut bytes: &[u8]) -> Option<Vec<Multiaddr>> {
    let mut addresses = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk() {
        let (address, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        addresses.push(Multiaddr::try_from(address.to_vec()).ok()?);
        bytes = rest;
    }
    bytes.is_empty().then_some(addresses)
}

/// Returns the 64-bit FNV-1a hash of all parts, each after its length. It finds damage by the disk, and is no
/// protection against somebody who can write the file.
fn checksum(parts: &[&[u8]], expiry: Option<WallExpiry>) -> i64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for part in parts {
        add(&(part.len() as u64).to_be_bytes());
        add(part);
    }
    if let Some(WallExpiry { at, left }) = expiry {
        add(&at.to_be_bytes());
        add(&left.to_be_bytes());
    }
    hash.cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_were_written() {
        let addresses: Vec<Multiaddr> =
            ["/ip4/192.0.2.1/tcp/1", "/dns4/a.example/udp/2/quic-v1"].map(|text| text.parse().unwrap()).into();
        assert_eq!(split(&join(&addresses)), Some(addresses.clone()));
        assert_eq!(split(&[]), Some(Vec::new()));
        let bytes = join(&addresses);
        for len in 1..bytes.len() {
            let whole_first = split(&bytes[..len]).is_none_or(|some| some == addresses[..1]);
            assert!(whole_first, "{len} bytes");
        }
        assert_eq!(split(&[0, 1]), None);
    }

    #[test]
    fn a_checksum_is_of_all_parts_and_their_borders() {
        let sums = [
            checksum(&[b"ab", b"c"], None),
            checksum(&[b"a", b"bc"], None),
            checksum(&[b"ab", b"c"], Some(WallExpiry { at: 1, left: 2 })),
            checksum(&[b"ab", b"c"], Some(WallExpiry { at: 2, left: 1 })),
        ];
        let distinct: std::collections::BTreeSet<_> = sums.into_iter().collect();
        assert_eq!(distinct.len(), sums.len());
    }
}
