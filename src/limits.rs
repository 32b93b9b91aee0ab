//! Every bound of the system, named, with its unit, in one place.
//!
//! A number that a user may change is the default of an option and is named here; a number that
//! nobody needs to change is a constant here. No other module states a bound of its own.

use std::time::Duration;

/// Longest file name on the wire, in bytes.
pub const NAME_MAX: usize = 4096;

/// Longest single component of a file name, in bytes (what Linux file systems hold).
pub const COMPONENT_MAX: usize = 255;

/// Deepest file name, in components.
pub const DEPTH_MAX: usize = 64;

/// Symbolic links followed while one name is opened, as in Linux (`path_resolution(7)`).
pub const LINKS_MAX: usize = 40;

/// Bytes of an over-long name that are read so that the refusal can show how it began.
pub const NAME_SHOWN: usize = 256;

/// Bytes of a name that nobody has checked which the log shows: a peer may say long ones all day.
pub const NAME_LOGGED: usize = 1024;

/// Longest text of a refusal, in bytes: the original client reads no more.
pub const REFUSAL_MAX: usize = 1024;

/// Port that both sides use where none is given.
pub const DEFAULT_PORT: u16 = 9999;

/// Files of at least this size, in bytes, have ten progress lines; smaller ones have one.
pub const PROGRESS_MIN: u64 = 1 << 20;

/// Files up to this size, in bytes, are hashed while they are read and sent in one write.
pub const SMALL_FILE_MAX: u64 = 64 << 10;

/// Most bytes handed to the kernel in one `sendfile`.
pub const SEND_CHUNK: u64 = 1 << 20;

/// Last bytes of a file that are held back until it is known not to have changed.
pub const LAST_CHUNK: u64 = 16 << 10;

/// Read size while a cold stretch of a file is brought into memory, in bytes.
pub const WARM_CHUNK: usize = 128 << 10;

/// Read size while hashing a file, in bytes.
pub const HASH_CHUNK: usize = 256 << 10;

/// Buffer of the client's receiving pipeline, in bytes, and how many of them there are.
pub const RECEIVE_CHUNK: usize = 1 << 20;
/// Buffers that travel through the client's receiving pipeline.
pub const RECEIVE_CHUNKS: usize = 8;

/// Digests remembered in memory.
pub const DIGESTS_MAX: usize = 65_536;

/// Roots of small files that are sent as a whole, remembered in memory.
pub const SMALL_ROOTS_MAX: usize = 32_768;

/// Trees of files remembered in memory.
pub const TREES_MAX: usize = 65_536;
/// Memory for trees of files that nobody reads at the moment, in bytes.
pub const TREES_BYTES_MAX: usize = 64 << 20;

/// Blocks of the largest file that version 2 carries (16 TiB).
pub const BLOCKS_MAX: u64 = 1 << 24;

/// Age that a file's times must have before its digest is remembered: a change within one tick of
/// a coarse clock would go unseen.
pub const DIGEST_SETTLED: Duration = Duration::from_secs(2);

/// Pause between `OK` and the header: the original client expects them in separate reads.
pub const V1_PAUSE: Duration = Duration::from_millis(20);

/// Longest pause between `OK` and the header: the original client gives up after 10 s.
pub const V1_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long `OK` may wait for a digest. The original client gives up after 10 s of silence and
/// counts anew after `OK`, so a file whose digest takes nearly twice that can still be fetched.
pub const V1_OK_PATIENCE: Duration = Duration::from_secs(8);

/// Requests in flight on one connection of version 2: at 50 ms and 4 KiB for each, 80 MB/s.
pub const V2_REQUESTS_MAX: u32 = 1024;

/// Requests on one connection of version 2 that are begun and not ended: each may have a file open.
pub const V2_OPEN_MAX: usize = 64;

/// Requests on one connection of version 2 whose files are being opened at the same time: each may take a
/// thread that waits for a disk, and others need threads too.
pub const V2_OPENING_MAX: usize = 8;

/// Bytes of names and ranges of the requests on one connection that have not been begun.
pub const V2_WAITING_BYTES: usize = 1 << 20;

/// Things done in one go for the requests of a connection, before something is sent and others get their
/// turn.
pub const V2_BATCH: usize = 64;

/// Room that is made at first for what a client of version 2 says, in bytes.
pub const V2_ROOM_MIN: usize = 256;
/// Room that is made for what a client of version 2 says that has filled all before it, in bytes.
pub const V2_ROOM_MAX: usize = 16 << 10;
/// Another buffer is taken when less than this share of the room that is wanted is left in the one before.
pub const V2_ROOM_SHARE: usize = 4;

/// Bytes of data that may be under way for one request of version 2, unless the client says otherwise.
pub const V2_WINDOW: u64 = 16 << 20;

/// Longest time in which a server of version 2 says nothing about a request that it works on.
pub const V2_WAIT_INTERVAL: Duration = Duration::from_secs(2);

/// Blocks of a file whose values are computed before they are sent, while its root is not known.
pub const V2_VALUES_AHEAD: u64 = 2;

/// Bytes of frames that are gathered before they are written.
pub const V2_GATHER: usize = 128 << 10;

/// Files that a connection of version 2 keeps open for further requests.
pub const V2_HELD_MAX: usize = 8;

/// Bytes that are written at once in place of those that a file has lost.
pub const V2_FILL: usize = 4096;

/// Most bytes of the payload of Conduit's first frame, which shows the password.
pub const CONDUIT_AUTH_MAX: u32 = 4096;
/// Most bytes of the payload of a frame that a Conduit client sends, packed or not: a chunk of 1.5 MiB in Base64.
pub const CONDUIT_PAYLOAD_MAX: u32 = 2 << 20;
/// Most bytes of a payload that is sent: what the dialect allows.
pub const CONDUIT_REPLY_MAX: u32 = 100 << 20;
/// How deeply a payload may be nested.
pub const CONDUIT_DEPTH_MAX: usize = 16;
/// Bytes of a chunk that is sent, and that clients are told to send.
pub const CONDUIT_CHUNK: u64 = 64 << 10;
/// Longest name of a client, in bytes; longer ones are cut.
pub const CONDUIT_NAME_MAX: usize = 128;
/// Longest password, in bytes.
pub const CONDUIT_PASSWORD_MAX: usize = 1024;
/// Transfers that a connection of Conduit has open; further ones are refused.
pub const CONDUIT_TRANSFERS_MAX: usize = 16;
/// Calls that wait on one connection while one is answered; then no more is heard.
pub const CONDUIT_CALLS_MAX: usize = 16;
/// Bytes of calls that wait, about.
pub const CONDUIT_CALLS_BYTES: usize = 256 << 10;
/// Bytes of answers that wait for a client that has said PAUSE; then no more calls are answered.
pub const CONDUIT_HELD_MAX: usize = 256 << 10;
/// Room that is made for what a Conduit client says, in bytes.
pub const CONDUIT_ROOM: usize = 16 << 10;
/// Time between two pings to a Conduit client.
pub const CONDUIT_PING_INTERVAL: Duration = Duration::from_secs(30);
/// Silence after which a Conduit client is taken for dead.
pub const CONDUIT_DEAD_AFTER: Duration = Duration::from_secs(90);
/// How long a client that has said PAUSE is obeyed.
pub const CONDUIT_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Pause behind AUTH_SUCCESS before anything that was not asked for: the published client drops what it reads with it.
pub const CONDUIT_QUIET: Duration = Duration::from_secs(2);
/// Files that one answer to `file_list` names.
pub const CONDUIT_LIST_MAX: usize = 100_000;
/// Names that are tried for a file whose own one is taken.
pub const CONDUIT_NAMES_MAX: u32 = 8;
/// How long an upload waits for another one of the same name, of a connection that may be gone, before it takes
/// another name.
pub const CONDUIT_BUSY_WAIT: Duration = Duration::from_secs(1);
/// How long the part of an upload that cannot be gone on with may take to be opened: its client waits for half a minute.
pub const UPLOAD_OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// How often is looked whether that has ended.
pub const CONDUIT_BUSY_PROBE: Duration = Duration::from_millis(50);
/// Clients that listen over Conduit, at most; further ones hear of no push.
pub const CONDUIT_LISTENERS_MAX: usize = 16_384;
/// Pushes that wait for one Conduit client, behind the one that is under way.
pub const CONDUIT_PUSHES_MAX: usize = 16;
/// Frames of a push that wait to be sent.
pub const CONDUIT_PUSH_AHEAD: usize = 2;
/// Chunks of a push that a Conduit client has to have read before as many behind the next ones are sent.
pub const CONDUIT_PUSH_CHUNKS: u64 = 8;
/// How long a Conduit client may need to say that it takes a file.
pub const CONDUIT_ACK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a push to one client may take, with all before it: then whoever pushes hears that it has failed.
pub const CONDUIT_PUSH_TIMEOUT: Duration = Duration::from_secs(6 * 60 * 60);

/// Longest pattern of a listing, in bytes.
pub const PATTERN_MAX: usize = 1024;
/// Patterns of one listing.
pub const PATTERNS_MAX: usize = 32;
/// Bytes of entries after which a stretch of a listing ends: with the last one and the cursor they fit into
/// one frame of 64 KiB.
pub const LIST_STRETCH: usize = 48 << 10;
/// Entries of folders that are looked at for one stretch of a listing, whether they are listed or not.
pub const LIST_LOOKED_MAX: u32 = 20_000;
/// Time after which a stretch of a listing ends with what it has, at the next entry: on a slow disk, or
/// with patterns that were made to take long.
pub const LIST_TIME: Duration = Duration::from_millis(500);
/// Bytes of a folder that are read at once.
pub const LIST_READ: usize = 32 << 10;
/// Links to folders that a listing follows within one name.
pub const LIST_LINKS_MAX: u8 = 8;
/// Things that one connection is removing, renaming or making; while there are as many, no more is heard.
pub const V2_CHANGES_MAX: usize = 64;
/// Files that one connection is putting and that this server asks for; further ones are refused.
pub const V2_PUTS_MAX: usize = 16;
/// Bytes of files that one connection has brought and that are not written yet; more are left in its socket. One
/// block is being written while the next one arrives.
pub const UPLOAD_HELD_MAX: usize = 2 << 20;
/// As many bytes of all connections; beyond, each of them may hold less than [`V2_PIECE`].
pub const UPLOADS_HELD_MAX: usize = 64 << 20;
/// Uploads that a server has open: each holds two descriptors.
pub const UPLOADS_MAX: usize = 256;
/// Connections whose bytes are hashed and written at the same time: others need threads too.
pub const UPLOADS_WRITING_MAX: usize = 8;
/// Uploads that are remembered to be stored, for clients that have missed the answer.
pub const UPLOADS_REMEMBERED_MAX: usize = 1024;
/// How often an upload may turn out not to have the root that the client says, before it fails.
pub const UPLOAD_ROUNDS_MAX: u32 = 1;
/// How long an upload waits for the one before it, of the same name, to close its part.
pub const UPLOAD_CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may need to compute the root of what it puts, or the values of all blocks.
pub const UPLOAD_HASHING_MAX: Duration = Duration::from_secs(60 * 60);
/// Longest name of a running transfer, in bytes.
pub const TRANSFER_ID_MAX: usize = 32;
/// Questions about the server that one connection has in flight; further ones are refused.
pub const V2_CONTROLS_MAX: usize = 4;
/// Running transfers, or connections, that are told of at once.
pub const CONTROL_PAGE: usize = 64;
/// Transfers of a connection that are told by their ids.
pub const CONTROL_TRANSFERS_MAX: usize = 16;
/// Bytes of a name in what is said of a connection.
pub const CONTROL_NAME_MAX: usize = 256;
/// Bytes of a cause in what is said of a transfer that has ended.
pub const CONTROL_CAUSE_MAX: usize = 2048;
/// How long a client may take what is under way of a transfer that was cancelled, before it is cut.
pub const CANCEL_GRACE: Duration = Duration::from_secs(2);
/// How long it is remembered that a transfer was cancelled, for a client that comes again.
pub const CANCELLED_REMEMBERED: Duration = Duration::from_secs(60);
/// Cancelled transfers that are remembered, at most.
pub const CANCELLED_REMEMBERED_MAX: usize = 1024;
/// Stretches of listings that the server makes at the same time: each holds a descriptor for each folder
/// on its way.
pub const LISTING_MAX: usize = 8;
/// Stretches of listings that one connection has under way or holds until they can be sent.
pub const V2_STRETCHES_MAX: usize = 2;
/// Bytes of entries that may be under way to the client.
pub const LIST_WINDOW: u64 = 256 << 10;
/// How often a client that holds a listing up says that it is still there.
pub const LIST_KEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Entries that the client sorts before it shows them.
pub const LIST_SORTED_MAX: usize = 100_000;

/// Time a peer has for its full request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Time after which a peer that takes no byte is dropped.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a write is tried while the system says that the peer has no room.
pub const WRITE_PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Least rate at which a peer must take what it asked for, in bytes per second.
pub const RATE_MIN: u64 = 1024;

/// What may be made up for at once where a rate is limited: what the rate carries in this time.
pub const RATE_BURST: Duration = Duration::from_millis(100);
/// How much of a limited rate is given out at a time: what it carries in this time, but no fewer and no
/// more bytes than the following.
pub const RATE_TURN: Duration = Duration::from_millis(5);
/// Least bytes that are given out at a time, unless they would last longer than `RATE_TURN_MAX`.
pub const RATE_TURN_BYTES_MIN: u64 = 1 << 10;
/// Most bytes that are given out at a time.
pub const RATE_TURN_BYTES_MAX: u64 = 256 << 10;
/// Longest turn of a very low rate, unless a single byte takes longer.
pub const RATE_TURN_MAX: Duration = Duration::from_millis(250);
/// Least bytes to which a frame of version 2 is cut where a rate is limited: a frame that has begun has to
/// end before another file on the same connection gets its turn.
pub const RATE_FRAME_BYTES_MIN: u64 = 4 << 10;
/// Turns of which a frame of version 2 consists where a rate is limited.
pub const RATE_FRAME_TURNS: u64 = 2;
/// Turns that whoever had only small things to move may make up for in its next one.
pub const RATE_TURNS_DUE: u64 = 2;
/// Clients without a connection whose limited rates are remembered until they have rested.
pub const RATE_CLIENTS_RESTING_MAX: usize = 4096;
/// Leading bits of a public IPv6 address that tell one client from another: a site has a network of so
/// many bits, and chooses the others as it likes.
pub const RATE_CLIENT_BITS: u32 = 64;
/// Least rate to which a client may limit itself, for each connection, in bytes per second: well above that
/// from which on servers drop it (`RATE_MIN`).
pub const CLIENT_RATE_MIN: u64 = 4 << 10;

/// Of so many bytes that transfers of the next higher priority move, those of a lower one move one.
pub const PRIORITY_SHARE: u64 = 16;
/// Bytes per second that those of a lower priority may move in any case, so that nobody takes them for dead.
pub const PRIORITY_FLOOR: u64 = 4 << 10;
/// For so long a transfer goes before others of which nothing has moved.
pub const PRIORITY_LINGER: Duration = Duration::from_secs(1);
/// Bytes that go at a time while others go first.
pub const PRIORITY_PIECE: u64 = 64 << 10;
/// Most bytes that those of a lower priority may make up for.
pub const PRIORITY_CREDIT_MAX: i64 = 1 << 20;
/// How often whoever has to wait looks whether it may go on.
pub const PRIORITY_PROBE: Duration = Duration::from_millis(20);

/// Time that running transfers have to end after a shutdown was asked for.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the end of the server waits for blocking work, among it the catalog's last writes.
pub const RUNTIME_STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a closing connection waits for the peer to read and close, and how much it discards.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of unwanted input that a closing connection discards before it gives up. Closing with
/// input unread resets the connection, and what the peer has not received by then is lost to it.
pub const LINGER_BYTES: usize = 16 << 20;

/// Read size while unwanted input is discarded, in bytes.
pub const LINGER_CHUNK: usize = 4096;

/// Bytes of TLS records that a connection of the server holds unopened, at most: a record and what comes behind
/// it. A handshake that does not fit is not one of a client that means well.
pub const TLS_INCOMING_MAX: usize = 32 << 10;
/// Room that is made at first for TLS records of a peer, in bytes: more than most first messages have.
pub const TLS_ROOM_MIN: usize = 2 << 10;
/// Bytes that are sealed before they are written: one system call for several records, and all the memory
/// that a slow reader may hold.
pub const TLS_PIECE: usize = 64 << 10;
/// Bytes of a file that are read before they are sealed: one record.
pub const TLS_SCRATCH: usize = 16 << 10;
/// Largest file of a certificate or a private key, in bytes.
pub const TLS_FILE_MAX: u64 = 1 << 20;

/// Connections at once.
pub const CONNECTIONS_MAX: usize = 16_384;

/// Open files without which a server does not start: what it has open itself, and one connection.
pub const DESCRIPTORS_MIN: u64 = 32;

/// Connections that the kernel queues before they are accepted.
pub const BACKLOG: i32 = 4096;

/// First and longest wait after a failed `accept`.
pub const ACCEPT_BACKOFF_MIN: Duration = Duration::from_millis(10);
/// Longest wait after a failed `accept`.
pub const ACCEPT_BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Largest TCP segment, in bytes: two of them and their headers fit into 64 KiB. Linux hands two at a
/// time to a device, and has to cut them apart itself where they are larger than what the device
/// takes. Only the loopback device knows segments of such a size.
pub const SEGMENT_MAX: u32 = 32_500;

/// Threads for blocking work (opening, hashing, cold reads).
pub const BLOCKING_THREADS: usize = 64;

/// Files hashed at the same time.
pub const HASHING_MAX: usize = 2;

/// Blocks of files hashed at the same time for version 2.
pub const BLOCKS_HASHING_MAX: usize = 8;

/// A file whose digest would take longer than this is hashed before anybody asks.
pub const HASH_AHEAD: Duration = Duration::from_secs(5);
/// Files hashed ahead in one round.
pub const HASH_AHEAD_FILES: usize = 4096;
/// Shortest time between two rounds of looking for files to hash ahead.
pub const HASH_AHEAD_INTERVAL: Duration = Duration::from_secs(60);
/// Share of the time that looking for files to hash ahead may take: one part in this many.
pub const HASH_AHEAD_SHARE: u32 = 20;
/// A file that was changed more recently than this is not hashed ahead: it may still be growing.
pub const HASH_AHEAD_QUIET: Duration = Duration::from_secs(5);
/// Bytes hashed once to learn how fast this machine is.
pub const HASH_RATE_SAMPLE: usize = 8 << 20;
/// Buffer that is hashed again and again for that, in bytes.
pub const HASH_RATE_BUFFER: usize = 16 << 10;

/// How long the client waits for the answer to a hello before it takes the server for one of version 1.
pub const V2_HELLO_PATIENCE: Duration = Duration::from_secs(2);
/// How long a client waits at most, without anything else, for a server that says that it is still at it
/// (WAIT): a file of 16 TiB may have to be read from a slow disk first.
pub const V2_WAIT_MAX: Duration = Duration::from_secs(48 * 60 * 60);
/// Bytes that the client reads besides those of a block.
pub const V2_INPUT: usize = 4096;
/// Bytes of a block that the client receives, hashes and writes at once.
pub const V2_PIECE: usize = 256 << 10;
/// Blocks that one request of the client asks for, at most; a window holds as many.
pub const V2_RUN_BLOCKS_MAX: u64 = 16;
/// Blocks that one request of the client asks for, at least, while there are so many.
pub const V2_RUN_BLOCKS_MIN: u64 = 2;
/// Requests that each of the client's connections has in flight: while one is answered the next ones
/// are on their way.
pub const V2_RUNS_AHEAD: usize = 3;
/// Blocks that a further connection should have to fetch to be worth making.
pub const V2_LINK_BLOCKS_MIN: u64 = 16;
/// How often a block may arrive damaged before the client gives up.
pub const V2_BLOCK_TRIES: u32 = 5;
/// Connections at once for one file.
pub const V2_LINKS: u64 = 2;
/// Connections at once for one file, at most.
pub const V2_LINKS_MAX: u64 = 16;
/// How often progress is told while a file arrives.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);

/// Longest list of names for `--files-from`, in bytes.
pub const FILES_FROM_MAX: u64 = 256 << 20;
/// Files of a folder that wait to be fetched; a listing that is faster waits too.
pub const FOLDER_QUEUE: usize = 16_384;
/// Files of a server's folder that are remembered, so that they are not sent again: some 40 bytes each.
pub const PUT_KNOWN_MAX: usize = 1 << 20;
/// Batches of listed entries that wait to be compared with what lies here.
pub const FOLDER_BATCHES: usize = 16;
/// Results of single files that wait to be told.
pub const FOLDER_OUTCOMES: usize = 4096;
/// Connections that fetch small files of a folder.
pub const FOLDER_LINKS: usize = 2;
/// Largest file of a folder, in bytes, that is held in memory until it is proven: a block.
pub const FOLDER_SMALL_MAX: u64 = 1 << 20;
/// Small files that are in flight on one connection.
pub const FOLDER_PIPELINE: usize = 1024;
/// Bytes of small files that are in flight on one connection, about.
pub const FOLDER_PIPELINE_BYTES: u64 = 16 << 20;
/// Bytes of small files that are held in memory for one connection, at most.
pub const FOLDER_HELD_MAX: u64 = 2 * FOLDER_PIPELINE_BYTES;
/// Bytes that a file is expected to have of which only the name is known.
pub const FOLDER_UNKNOWN: u64 = 16 << 10;
/// Bytes of small files that are read at once.
pub const FOLDER_READ: usize = 256 << 10;
/// How long a connection for small files stays open with nothing to do.
pub const FOLDER_LINGER: Duration = Duration::from_secs(1);
/// How often a file of a folder may come to nothing before it is told as a failure.
pub const FOLDER_FILE_TRIES: u32 = 3;
/// Files that were saved after which they are flushed together.
pub const FOLDER_SYNC_FILES: u64 = 65_536;

/// Largest file that is put with all of its bytes at once, in bytes: read and hashed in memory, and proven by
/// the server as a whole.
pub const PUT_WHOLE_MAX: u64 = 1 << 20;
/// How often the bytes of a file may be asked for in one attempt to put it, all in all: damaged blocks come again,
/// and what a connection lost is asked for on another one.
pub const PUT_REPEATS_MAX: u64 = 8;
/// Bytes that may be asked for besides those in one attempt to put a file, however small it is.
pub const PUT_SURPLUS_MAX: u64 = 64 << 20;
/// Requests for one file that is put that a server may make on a connection, besides so many for each of its blocks.
pub const PUT_REQUESTS_MAX: u64 = 1024;
/// Requests for each block of a file that is put that a server may make on a connection.
pub const PUT_REQUESTS_PER_BLOCK_MAX: u64 = 8;
/// Bytes that are read of a server's requests before what it asked for is sent.
pub const PUT_UNANSWERED_MAX: usize = 256 << 10;
/// How often is looked again at a block that somebody else hashes.
pub const PUT_HASHING_PROBE: Duration = Duration::from_secs(1);
/// How long a client waits before it offers a small file again that the server may still be storing for a connection
/// that broke, and how often.
pub const PUT_BUSY_WAIT: Duration = Duration::from_millis(200);
/// How often a small file is offered again then.
pub const PUT_BUSY_TRIES: u32 = 25;
/// How long a client that gives an upload up tells the server why.
pub const PUT_FAREWELL: Duration = Duration::from_secs(1);

/// Pings that the client sends where nobody says how many.
pub const PINGS: u32 = 4;
/// Time between two pings of the client.
pub const PING_INTERVAL: Duration = Duration::from_secs(1);

/// Retries of the client after its first attempt.
pub const RETRIES: u32 = 6;
/// First wait of the client before a retry; it doubles each time.
pub const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Longest wait of the client before a retry.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(32);
/// Share of a wait that chance may add, in percent.
pub const RETRY_JITTER_PERCENT: u32 = 10;
/// How long the client waits to connect, and for the next byte.
pub const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the client waits for a server to close after the last byte of a file.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes of TLS records that a client reads at once.
pub const TLS_CLIENT_INPUT: usize = 256 << 10;
/// Bytes that a client seals at once while it reads, too.
pub const TLS_CLIENT_OUTPUT: usize = 64 << 10;
/// Largest file of known hosts, in bytes.
pub const KNOWN_HOSTS_MAX: u64 = 1 << 20;
/// How long a client waits for another one that is writing the file of known hosts.
pub const KNOWN_HOSTS_LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a client looks whether another one has done so.
pub const KNOWN_HOSTS_LOCK_INTERVAL: Duration = Duration::from_millis(10);
/// Largest file of certificates of authorities, in bytes.
pub const CA_FILE_MAX: u64 = 4 << 20;
/// Bytes of a file with a key that are read: its first line has to end within them.
pub const KEY_FILE_MAX: usize = 4096;

/// Size at which a log file is closed and a new one begun, in bytes.
pub const LOG_SIZE_MAX: u64 = 100 << 20;
/// Least size that a user may set for a log file, in bytes.
pub const LOG_SIZE_MIN: u64 = 4096;
/// Age at which a log file is closed and a new one begun.
pub const LOG_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Lines that wait for the disk before whoever logs has to wait too.
pub const LOG_QUEUE: usize = 8192;
/// Lines that wait for the console before further ones are not shown there: a terminal that is
/// held up, or a pipe that nobody reads, never holds up the program.
pub const LOG_CONSOLE_QUEUE: usize = 4096;
/// Pause after lines were written, in which further ones gather.
pub const LOG_GATHER: Duration = Duration::from_millis(5);
/// How long the end of a program waits for the console to take the last lines.
pub const LOG_CONSOLE_FLUSH_TIMEOUT: Duration = Duration::from_millis(500);
/// Log files of one second, at most: `…_2`, `…_3` and so on.
pub const LOG_NAMES_MAX: u32 = 10_000;
/// Wait after a failure to begin a new log file; the old one is written meanwhile.
pub const LOG_ROTATION_RETRY: Duration = Duration::from_secs(10);
/// How long the end of a program waits for its last log lines to be written.
pub const LOG_FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// Shortest time between two warnings that log lines could not be written.
pub const LOG_WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Longest name of a key, in bytes.
pub const KEY_NAME_MAX: usize = 64;
/// Longest name of somebody who listens for files, in bytes.
pub const RECEIVER_MAX: usize = 64;
/// Listeners of one server: each has a connection.
pub const LISTENERS_MAX: usize = 4096;
/// Listeners with one key.
pub const LISTENERS_PER_KEY_MAX: usize = 1024;
/// How long a connection that listens stays open with nothing said on it.
pub const LISTEN_SILENCE_MAX: Duration = Duration::from_secs(90);
/// How often a listener says that it is there.
pub const LISTEN_PING_INTERVAL: Duration = Duration::from_secs(25);
/// Files that a listener fetches at the same time.
pub const LISTEN_FETCHES_MAX: usize = 4;
/// Files that a listener has been told of and has not received: a server that tells of more is not listened to.
pub const LISTEN_WAITING_MAX: usize = 1024;
/// How often a listener tries again to fetch a file before the sender is told that it cannot.
pub const LISTEN_FETCH_RETRIES: u32 = 3;
/// Names that are tried for a file whose own name is taken: `name (1)`, `name (2)` and so on.
pub const LISTEN_NAMES_MAX: u32 = 10_000;
/// Files on their way to listeners, over all of a server.
pub const PUSHES_MAX: usize = 4096;
/// Files on their way to one listener.
pub const PUSHES_PER_RECEIVER_MAX: usize = 256;
/// How long a file waits for a listener that went away, for a sender that is there.
pub const PUSH_ABSENT_MAX: Duration = Duration::from_secs(15 * 60);
/// How long a listener may take to receive a file.
pub const PUSH_WAIT_MAX: Duration = V2_WAIT_MAX;
/// How long a file waits for a sender that went away.
pub const PUSH_LINGER: Duration = Duration::from_secs(60);
/// Files that were received, and are remembered for senders that have missed the answer.
pub const PUSHES_REMEMBERED_MAX: usize = 1024;
/// How long a file is kept on the server that neither a sender nor a listener goes on with.
pub const PUSH_SPOOL_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Most keys of one server.
pub const KEYS_MAX: usize = 10_000;
/// Largest file of keys, in bytes: a thousand or two for each of them.
pub const KEYS_FILE_MAX: u64 = 16 << 20;
/// Bytes of files that were put as a whole and wait to be stored, at most, each with `WHOLE_FILE_COST` besides.
/// Who has more to put waits, and is not read from.
pub const WHOLE_WAITING_BYTES: u32 = 32 << 20;
/// Files that one connection has put as a whole and that are not stored yet; while there are as many, no more is
/// heard.
pub const V2_STORING_MAX: usize = 1024;
/// What a file that was put as a whole counts for besides its bytes, so that many empty ones are bounded too.
pub const WHOLE_FILE_COST: u32 = 1 << 10;
/// Files that are made durable together, at most.
pub const GROUP_FILES_MAX: usize = 4096;
/// Bytes of files that are made durable together, about.
pub const GROUP_BYTES_MAX: u64 = 32 << 20;
/// Folders that a group of files keeps open; up to two groups are under way.
pub const GROUP_FOLDERS_MAX: usize = 128;
/// Folders that a group flushes one by one; where there are more, the file system is flushed once.
pub const GROUP_FOLDER_FLUSHES_MAX: usize = 8;
/// How long whoever stages files waits at most before it looks again whether a flush has ended.
pub const GROUP_PROBE: Duration = Duration::from_secs(1);
/// How long a small file that is being stored already, for a connection that is gone, is waited for.
pub const WHOLE_AGAIN_WAIT: Duration = Duration::from_secs(10);
/// How often it is looked whether it is stored.
pub const WHOLE_AGAIN_PROBE: Duration = Duration::from_millis(20);
/// Bytes that a disk must have left behind an upload: catalog, log and journals need room too.
pub const UPLOAD_SPACE_MARGIN: u64 = 16 << 20;
/// Files of a key that are looked for on the disk before an upload is refused for its quota.
pub const QUOTA_LOOKS: usize = 4096;
/// Time between two such searches for one key.
pub const QUOTA_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Changes of who has stored what that wait until the catalog can be written again; of more than these nothing
/// is known after a restart.
pub const OWNED_UNWRITTEN_MAX: usize = 65_536;

/// Largest quota of a key, in bytes: what the file of keys and the catalog can hold as a number.
pub const QUOTA_MAX: u64 = i64::MAX.cast_unsigned();
/// How long editing the keys waits for another program that edits them.
pub const KEYS_LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two looks at a lock on the keys that somebody else holds.
pub const KEYS_LOCK_PROBE: Duration = Duration::from_millis(10);

/// Failed attempts to show a key that an address has at once, before they are slowed.
pub const ATTEMPTS_BURST: u32 = 5;
/// Time that one failed attempt of an address costs.
pub const ATTEMPT_INTERVAL: Duration = Duration::from_secs(1);
/// Longest time that the answer to a failed attempt waits.
pub const ATTEMPT_WAIT_MAX: Duration = Duration::from_secs(30);
/// Failed attempts of one address whose answers wait; further ones get none.
pub const ATTEMPTS_WAITING_MAX: u32 = 16;
/// Addresses whose failed attempts are remembered while none of their answers waits.
pub const ATTEMPTS_ADDRESSES_MAX: usize = 4096;
/// Addresses that are remembered to have been warned of for keys in clear.
pub const PLAINTEXT_WARNED_MAX: usize = 1024;
/// Networks from which keys may come in clear that a user may name.
pub const PLAINTEXT_NETS_MAX: usize = 64;

/// Largest configuration file, in bytes.
pub const CONFIG_MAX: u64 = 1 << 20;

/// Digests kept in the catalog, in rows.
pub const CATALOG_DIGESTS_MAX: u32 = 1_000_000;
/// Trees of files kept in the catalog, in rows.
pub const CATALOG_TREES_MAX: u32 = 1_000_000;
/// Values of blocks kept in the catalog, in bytes: those of 8 TiB of files.
pub const CATALOG_VALUES_MAX: u64 = 256 << 20;
/// How long the part of an upload is kept that nobody goes on with.
pub const STAGED_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How often parts that are older are looked for.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// Transfers that have ended and are kept in the catalog, in rows.
pub const HISTORY_MAX: u32 = 100_000;
/// How long they are kept.
pub const HISTORY_AGE_MAX: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// Transfers of the past that are shown where nobody says how many.
pub const HISTORY_SHOWN: u32 = 100;
/// Records that wait to be shown.
pub const CONTROL_RECORDS: usize = 64;
/// Rows of the history that are read at once for whoever asks for it.
pub const HISTORY_PAGE: u32 = 128;
/// Longest name or address of a client by which the history is filtered, in bytes.
pub const HISTORY_CLIENT_MAX: usize = 256;
/// Digests, trees and transfers that wait to be written to the catalog; more are forgotten.
pub const CATALOG_QUEUE: usize = 1024;
/// How long one call waits for a catalog that somebody else has locked.
pub const CATALOG_BUSY_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a catalog that cannot be used is left alone.
pub const CATALOG_RETRY: Duration = Duration::from_secs(30);

/// Records of a part's journal that are read: twice as many as there are blocks.
pub const JOURNAL_RECORDS_MAX: u32 = 1 << 25;
/// Buffer in which a journal is read and written anew, in bytes.
pub const JOURNAL_CHUNK: usize = 64 << 10;
/// Bytes received after which they are flushed while more arrive.
pub const SYNC_BYTES: u64 = 64 << 20;
/// Time after which received bytes are flushed while more arrive.
pub const SYNC_INTERVAL: Duration = Duration::from_secs(5);
/// Receivers of one target that may finish one after the other while another one begins.
pub const STAGING_TRIES: usize = 100;

/// Folders within each other that are removed with what is in them.
pub const REMOVE_DEPTH_MAX: usize = DEPTH_MAX;
/// How often a folder that is being removed is looked through anew, because others put something into it.
pub const REMOVE_ROUNDS: u32 = 3;
/// How often a folder is opened that others make and remove at the same time.
pub const WAY_TRIES: u32 = 100;
/// Bytes of a folder's entries that are read at once while it is removed or swept.
pub const WALK_READ: usize = 32 << 10;
/// Entries that a sweep looks at before it pauses.
pub const SWEEP_ENTRIES: u32 = 1024;
/// Pause of a sweep, so that it takes no disk from those who wait for one.
pub const SWEEP_PAUSE: Duration = Duration::from_millis(2);

/// Run of zeros that becomes a hole in a sparse file, in bytes, aligned to as much: a page, which is the
/// smallest block that file systems leave out.
pub const HOLE_LEN: usize = 4096;
/// Folders of a folder that is being received that are kept open, the last used ones.
pub const FOLDERS_OPEN_MAX: usize = 32;
/// Small files that may wait for their names in an existing folder; more give them theirs at once.
pub const FOLDER_GROUP_MAX: usize = 1 << 16;
/// Entries that are looked at when what an earlier run has left in a folder is looked for.
pub const FOLDER_WALK_MAX: usize = 1 << 24;

/// Names that are looked at, in growing steps, before it is given up to find one that nothing has.
pub const NAMES_TRIED_MAX: u32 = 48;
/// Bytes of a digest that tell the slots of uploads apart.
pub const SLOT_BYTES: usize = 20;

/// Files that wait until somebody is told that they were received; further ones are not told of.
pub const RECEIVED_QUEUE_MAX: usize = 16_384;
/// How long the end of a server waits until everybody was told of what it has received.
pub const RECEIVED_END_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end of a server waits for work that has yet to be given up.
pub const SERVICE_END_TIMEOUT: Duration = Duration::from_secs(2);

/// Batches of a listing that wait in a program until they are taken.
pub const LISTING_BATCHES: usize = 2;
/// Time over which the rate of a transfer is measured that a program is told of.
pub const PROGRESS_RATE_SPAN: Duration = Duration::from_secs(5);

/// Commands for received files that run at the same time.
pub const COMMANDS_RUNNING_MAX: usize = 4;
/// Commands for received files that wait until others have ended; further ones are not run.
pub const COMMANDS_QUEUE_MAX: usize = 4096;
/// How long a command for a received file may run.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// Bytes of what a command says that are logged; the others are read and counted.
pub const COMMAND_OUTPUT_MAX: usize = 4 << 10;
/// Bytes of what a command says that are read at once.
pub const COMMAND_READ: usize = 4 << 10;
/// How long it is waited for the rest of what a command has said that has ended: others may have its outputs still.
pub const COMMAND_OUTPUT_GRACE: Duration = Duration::from_secs(1);
