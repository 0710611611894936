//! Data on a connection.

use std::io::IoSlice;

use futures::{AsyncReadExt, AsyncWriteExt, future::join};

use crate::subject::{Stream, within};

/// Sends bytes in both directions, in one piece and in several.
pub async fn echo(mut one: impl Stream, mut other: impl Stream) {
    let there = async {
        let parts = [IoSlice::new(b"over "), IoSlice::new(b"there")];
        let written = one.write_vectored(&parts).await.unwrap();
        assert!(written > 0, "nothing was written");
        one.write_all(&b"over there"[written..]).await.unwrap();
        one.flush().await.unwrap();
        let mut back = [0; 4];
        one.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"back");
    };
    let back = async {
        let mut there = [0; 10];
        other.read_exact(&mut there).await.unwrap();
        assert_eq!(&there, b"over there");
        other.write_all(b"back").await.unwrap();
        other.flush().await.unwrap();
    };
    within(Box::pin(join(there, back))).await;
}

/// Sends more than the buffers of the system hold, so that both ends have to wait for each other.
pub async fn transfer(mut from: impl Stream, mut to: impl Stream) {
    let data: Vec<u8> = (0..16 * 1024 * 1024_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let write = async {
        from.write_all(&data).await.unwrap();
        from.close().await.unwrap();
    };
    let mut read = Vec::new();
    let (_, length) = within(Box::pin(join(write, to.read_to_end(&mut read)))).await;
    assert_eq!(length.unwrap(), data.len());
    assert!(read == data, "the data came out different");
}

/// A closed direction can be closed again, also when both are closed, and when the remote has left without reading all.
pub async fn close_again(mut one: impl Stream, mut other: impl Stream) {
    one.close().await.unwrap();
    other.close().await.unwrap();
    assert_eq!(within(one.read(&mut [0; 8])).await.unwrap(), 0);
    assert_eq!(within(other.read(&mut [0; 8])).await.unwrap(), 0);
    one.close().await.unwrap();
    other.close().await.unwrap();
}

/// One end is dropped with unread data, which resets the connection. The other one can still be closed.
pub async fn close_after_reset(mut one: impl Stream, mut other: impl Stream) {
    one.write_all(b"unread").await.unwrap();
    other.write_all(b"there").await.unwrap();
    within(one.read_exact(&mut [0; 5])).await.unwrap();
    drop(other);
    assert!(within(one.read(&mut [0; 8])).await.is_err());
    one.close().await.unwrap();
}

/// One end closes its direction. The other one reads the end and still sends.
pub async fn half_close(mut one: impl Stream, mut other: impl Stream) {
    one.close().await.unwrap();
    assert_eq!(within(other.read(&mut [0; 8])).await.unwrap(), 0);
    other.write_all(b"still here").await.unwrap();
    other.close().await.unwrap();
    let mut rest = String::new();
    within(one.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "still here");
}
