//! Two streams joined by a real connection, in clear and over TLS: nothing is lost, whoever waits for whom.

use tokio::net::TcpListener;

use super::*;
use crate::tls::{Identity, Trust};

/// Bytes that a socket holds, about.
const BUFFER: usize = 32 << 10;

/// Two ends: a client's and a server's.
pub(in crate::client) async fn pair(is_tls: bool) -> (Stream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(connecting, listener.accept());
    let (client, server) = (client.unwrap(), accepted.unwrap().0);
    // So small that they are full all the time.
    for socket in [&client, &server] {
        socket2::SockRef::from(socket).set_send_buffer_size(BUFFER).unwrap();
        socket2::SockRef::from(socket).set_recv_buffer_size(BUFFER).unwrap();
    }
    if !is_tls {
        return (Stream::plain(client), Stream::plain(server));
    }
    let (identity, ..) = Identity::make().unwrap();
    let config = Trust::Pinned(vec![identity.pin()]).client_config().unwrap();
    let (near, far) = (
        Session::client(config, "host").unwrap(),
        Session::server(identity.server_config().unwrap()).unwrap(),
    );
    match tokio::join!(Stream::shake(client, near), Stream::shake(server, far)) {
        (Ok(client), Ok(server)) => (client, server),
        _ => panic!("no handshake"),
    }
}

fn sample(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

/// Sends everything without ever waiting for more than room.
async fn send(stream: &mut Stream, mut bytes: &[u8]) {
    while !bytes.is_empty() || stream.has_unsent() {
        match stream.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                stream.ready(Interest::WRITABLE).await.unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn what_fills_the_socket_arrives_whole_and_in_order() {
    for is_tls in [false, true] {
        let (mut client, mut server) = pair(is_tls).await;
        assert_eq!(client.is_tls(), is_tls);
        let data = sample(9_000_001);
        let (got, ()) = tokio::join!(
            async {
                let mut got = BytesMut::new();
                while got.len() < data.len() {
                    assert!(server.read_buf(&mut got, usize::MAX).await.unwrap() > 0);
                }
                got
            },
            send(&mut client, &data)
        );
        assert!(got == data, "{is_tls}");
    }
}

#[tokio::test]
async fn bytes_go_where_they_are_wanted_and_none_is_read_twice() {
    for is_tls in [false, true] {
        let (mut client, mut server) = pair(is_tls).await;
        let data = sample(3_000_000);
        let (got, written) = tokio::join!(
            async {
                let (mut got, mut input, mut turn) = (Vec::new(), BytesMut::new(), 0);
                while got.len() < data.len() {
                    turn += 1;
                    // As a link does: what was read ahead comes first.
                    if !input.is_empty() {
                        got.extend_from_slice(&input.split());
                        continue;
                    }
                    let mut place = vec![0; 1 + turn * 7919 % 100_000];
                    let result = match turn % 3 {
                        0 => client.read_buf(&mut input, 1 + turn % 5000).await.map(|_| 0),
                        1 => client.try_read_buf(&mut input).map(|_| 0),
                        _ => client.try_fill(&mut place, &mut input),
                    };
                    match result {
                        Ok(count) => got.extend_from_slice(&place[..count]),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            client.ready(Interest::READABLE).await.unwrap();
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                got
            },
            server.write_all(&data)
        );
        written.unwrap();
        assert!(got == data, "{is_tls}");
    }
}

#[tokio::test]
async fn what_was_opened_and_not_taken_is_there_behind_the_park() {
    let (mut client, mut server) = pair(true).await;
    server.write_all(b"one and two").await.unwrap();
    let mut input = BytesMut::new();
    assert_eq!(client.read_buf(&mut input, 4).await.unwrap(), 4);
    let parked = client.park().unwrap();
    let (mut client, mut place) = (parked.unpark().unwrap(), [0; 7]);
    assert_eq!(client.try_fill(&mut place, &mut input).unwrap(), 7);
    assert_eq!((&input[..], &place[..]), (&b"one "[..], &b"and two"[..]));
    client.write_all(b"three").await.unwrap();
    input.clear();
    server.read_buf(&mut input, 100).await.unwrap();
    assert_eq!(&input[..], b"three");
}

#[tokio::test]
async fn only_an_end_that_was_announced_is_one_over_tls() {
    let mut input = BytesMut::new();
    let (mut client, server) = pair(true).await;
    server.close(Duration::from_secs(10)).await;
    assert_eq!(client.read_buf(&mut input, 100).await.unwrap(), 0);
    let (mut client, server) = pair(true).await;
    drop(server);
    let error = client.read_buf(&mut input, 100).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    let (mut client, server) = pair(false).await;
    drop(server);
    assert_eq!(client.read_buf(&mut input, 100).await.unwrap(), 0);
}

#[tokio::test]
async fn bytes_of_a_file_go_whole_and_in_order_between_others_and_end_where_it_ends() {
    let data = sample(2_000_003);
    let mut file = tempfile::tempfile().unwrap();
    io::Write::write_all(&mut file, &data).unwrap();
    let file = StoredFile::new(file).unwrap().unwrap();
    for is_tls in [false, true] {
        let (mut client, mut server) = pair(is_tls).await;
        let giving = async {
            send(&mut client, b"head").await;
            let (mut offset, size) = (1, data.len() as u64);
            while offset < size {
                match client.try_send_file(&file, offset, (size - offset).min(700_000)) {
                    Ok(count) => offset += count as u64,
                    Err(GiveError::Socket(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                        client.ready(Interest::WRITABLE).await.unwrap();
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
            send(&mut client, b"tail").await;
            while !matches!(client.try_send_file(&file, size, 5), Ok(0)) {
                client.ready(Interest::WRITABLE).await.unwrap();
            }
        };
        let want = [b"head", &data[1..], b"tail"].concat();
        let receiving = async {
            let mut got = BytesMut::new();
            while got.len() < want.len() {
                assert!(server.read_buf(&mut got, usize::MAX).await.unwrap() > 0);
            }
            got
        };
        let (got, ()) = tokio::join!(receiving, giving);
        assert!(got == want, "{is_tls}");
    }
}
