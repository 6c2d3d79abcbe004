//! Every bound of the system, in one place, with the relations between them asserted at compile time.
//!
//! Invariant: whatever queues, buffers or is stored has its bound here. Sizes are bytes, times are
//! milliseconds, unless the name says otherwise.

/// Longest namespace.
pub const NAMESPACE_BYTES: usize = 64;
/// Longest caller-chosen request id.
pub const REQUEST_ID_BYTES: usize = 64;
/// A client id of the exchange stream, exactly.
pub const CLIENT_ID_BYTES: usize = 16;
/// Shortest session token that a caller may bring, decoded.
pub const TOKEN_MIN_BYTES: usize = 16;
/// Longest session token, decoded.
pub const TOKEN_MAX_BYTES: usize = 128;
/// The same as text, in base64url.
pub const TOKEN_TEXT_BYTES: usize = TOKEN_MAX_BYTES.div_ceil(3) * 4;
/// Longest user id.
pub const USER_ID_BYTES: usize = 256;
/// Longest key of the key space.
pub const KEY_BYTES: usize = 1024;
/// Largest value of a key.
pub const VALUE_BYTES: usize = 1 << 20;
/// Most fields of one session.
pub const SESSION_FIELDS: usize = 256;
/// Longest name of a session field.
pub const FIELD_NAME_BYTES: usize = 256;
/// Largest session, all names and values together.
pub const SESSION_BYTES: usize = 256 << 10;
/// Most texts that describe the client of one session.
pub const CLIENT_ATTRIBUTES: usize = 16;
/// All names and values of these texts together.
pub const CLIENT_ATTRIBUTE_BYTES: usize = 1 << 10;
/// Largest limit of a user's live sessions that a namespace may set.
pub const SESSIONS_PER_USER: usize = 256;
/// Most keys of one lease.
pub const LEASE_KEYS: usize = 128;
/// Most comparisons of one transaction.
pub const TXN_COMPARES: usize = 64;
/// Most operations in one branch of a transaction.
pub const TXN_OPERATIONS: usize = 64;
/// What the operations of one transaction answer, all together. Replies are kept for replays, gets among them.
pub const TXN_RESULT_BYTES: usize = 64 << 10;
/// Longest SKU.
pub const SKU_BYTES: usize = 128;
/// Most lines of one cart.
pub const CART_LINES: usize = 500;
/// Most pieces of one line.
pub const QUANTITY_MAX: u32 = 1_000_000;
/// Most attributes of one cart line.
pub const LINE_ATTRIBUTES: usize = 32;
/// All attribute names and values of one cart line together.
pub const LINE_ATTRIBUTE_BYTES: usize = 4 << 10;
/// Largest absolute amount of one unit price, in minor units.
pub const PRICE_MAX_MINOR_UNITS: i64 = 1_000_000_000_000;
/// Most actions of one update of a cart.
pub const CART_ACTIONS: usize = 100;
/// Longest note of a cart.
pub const CART_NOTE_BYTES: usize = 2 << 10;
/// Most coupon codes of one cart.
pub const CART_COUPONS: usize = 16;
/// Longest coupon code.
pub const COUPON_CODE_BYTES: usize = 64;
/// Most attributes of one cart itself, and most fields of one address.
pub const CART_ATTRIBUTES: usize = 32;
/// All names and values of a cart's own attributes, or of one address, together.
pub const CART_ATTRIBUTE_BYTES: usize = 4 << 10;
/// Longest name of whoever freezes a cart.
pub const HOLDER_ID_BYTES: usize = 64;
/// Longest order id.
pub const ORDER_ID_BYTES: usize = 64;
/// Merges that are followed from a cart to the one that holds its lines. A chain that is longer is cut: its first
/// owner has a cart of its own again.
pub const CART_POINTERS: usize = 8;
/// Largest cart that the reply to a freeze repeats. Replies are kept for replays, and a client has many of them.
pub const CART_SNAPSHOT_BYTES: usize = 32 << 10;

/// Idle TTL of a session whose creator names none.
pub const SESSION_IDLE_TTL_DEFAULT_MS: u64 = 30 * 60 * 1000;
/// Absolute TTL of a session whose creator names none.
pub const SESSION_ABSOLUTE_TTL_DEFAULT_MS: u64 = 14 * 24 * 3600 * 1000;
/// Longest touch interval of a session for which nothing was set.
pub const TOUCH_INTERVAL_DEFAULT_MS: u64 = 60 * 1000;
/// Longest touch interval that a namespace may set.
pub const TOUCH_INTERVAL_MAX_MS: u64 = 3600 * 1000;
/// Longest TTL of anything: ten years.
pub const TTL_MAX_MS: u64 = 10 * 365 * 24 * 3600 * 1000;
/// Lease of a freeze whose holder names none.
pub const CART_LEASE_DEFAULT_MS: u64 = 10 * 60 * 1000;
/// Longest lease of a freeze.
pub const CART_LEASE_MAX_MS: u64 = 24 * 3600 * 1000;
/// How long a cart without lines is kept after its last change, where its namespace does not say.
pub const CART_TTL_EMPTY_DEFAULT_MS: u64 = 7 * 24 * 3600 * 1000;
/// How long a session's cart is kept after its last change, if its session lives that long.
pub const CART_TTL_GUEST_DEFAULT_MS: u64 = 30 * 24 * 3600 * 1000;
/// How long a user's cart is kept after its last change.
pub const CART_TTL_USER_DEFAULT_MS: u64 = 90 * 24 * 3600 * 1000;
/// How long a completed order is remembered.
pub const ORDER_TTL_MS: u64 = 90 * 24 * 3600 * 1000;
/// How long the reply to a request id is kept.
pub const REPLY_WINDOW_MS: u64 = 24 * 3600 * 1000;

/// Page size of a listing whose caller names none.
pub const LIST_DEFAULT: usize = 100;
/// Largest page of a listing, in items.
pub const LIST_MAX: usize = 1000;
/// Largest page of a listing, in bytes; a page ends with the item that crosses it.
pub const LIST_PAGE_BYTES: usize = 2 << 20;
/// Most stored keys that one page looks at, expired ones included.
pub const LIST_SCAN: usize = 20_000;

/// What a store for `tower-sessions` remembers of the sessions that requests have loaded.
pub const TOWER_SESSIONS_BASE_BYTES: usize = 16 << 20;

/// Most replies that one client of the exchange stream may leave unconfirmed.
pub const CLIENT_WINDOW: usize = 4096;
/// Bytes of unconfirmed replies beyond which a client is refused: half a kilobyte for each of as many as it may have.
pub const CLIENT_WINDOW_BYTES: usize = CLIENT_WINDOW * 512;
/// Due records that one log entry sweeps: so few that writes hardly notice when very many are due at once.
pub const SWEEP_PER_ENTRY: usize = 16;
/// The same once the sweep is late, so that no load can outrun it for ever.
pub const SWEEP_PER_ENTRY_LATE: usize = 256;
/// How long something may be due before the sweep is late.
pub const SWEEP_LATE_MS: u64 = 10 * 60 * 1000;
/// Sessions that one login ends at most, where a limit of sessions per user was lowered far below what a user has.
pub const ENDED_PER_LOGIN: usize = 64;
/// Sessions of a user that one login looks at beyond the limit, to tell live ones from expired ones.
pub const LOGIN_SCAN: usize = 256;

/// Most events that are kept for watchers to catch up with.
pub const EVENT_HISTORY: u64 = 1_000_000;
/// Bytes of the events that are kept.
pub const EVENT_HISTORY_BYTES: u64 = 256 << 20;
/// How long events are kept, in log time.
pub const EVENT_HISTORY_MS: u64 = 3600 * 1000;
/// Parts that the history of events is cut into: it is forgotten a part at a time.
pub const EVENT_HISTORY_PARTS: u64 = 32;
/// Events that are stored together, in bytes; a chunk ends with the revision that crosses it.
pub const EVENT_CHUNK_BYTES: usize = 32 << 10;
/// The newest events that a node keeps in memory while somebody watches; a watcher that falls behind them is told so.
pub const WATCH_TAIL_BYTES: usize = 16 << 20;
/// Most watchers of one node.
pub const WATCHERS: usize = 2048;
/// Events in one message to a watcher, in bytes; a message ends with the event that crosses it. Small, because each
/// watcher that does not read has two of them waiting.
pub const WATCH_RESPONSE_BYTES: usize = 128 << 10;
/// Most filters of one watcher.
pub const WATCH_FILTERS: usize = 64;
/// How often a watcher is told how far it is, unless it says otherwise.
pub const WATCH_PROGRESS_DEFAULT_MS: u32 = 1000;
/// The most often that it may ask for.
pub const WATCH_PROGRESS_MIN_MS: u32 = 100;
/// The least often.
pub const WATCH_PROGRESS_MAX_MS: u32 = 60_000;

/// Largest gRPC message that a node accepts from a client.
pub const MESSAGE_BYTES: usize = 4 << 20;
/// Messages within one message, at any depth, but for entries of maps: room for the smallest answers to all that may be under
/// way on a stream.
pub const MESSAGE_PARTS: usize = 4 * STREAM_IN_FLIGHT;
/// Of a message that has more of them, each takes at least so many bytes.
pub const MESSAGE_BYTES_PER_PART: usize = 8;
/// What decoding may allocate for each byte of a message.
pub const DECODED_BYTES_PER_BYTE: usize = 128;
/// What it may allocate beside.
pub const DECODED_BYTES: usize = 32 << 20;
/// Largest gRPC message between nodes.
pub const PEER_MESSAGE_BYTES: usize = 16 << 20;
/// Connections to other nodes that a node remembers.
pub const PEER_CONNECTIONS: usize = 256;
/// Operations in one exchange frame.
pub const FRAME_OPERATIONS: usize = 4096;
/// Operations of one exchange stream that a node works on at a time; the stream is not read beyond.
pub const STREAM_IN_FLIGHT: usize = 8192;
/// Bytes of writes under way on one exchange stream at which it is not read further.
pub const STREAM_IN_FLIGHT_BYTES: usize = 16 << 20;
/// An answer to a unary call that takes more is large: it needs a place until its caller has read it.
pub const LARGE_ANSWER_BYTES: usize = 64 << 10;
/// Such places of one connection; who has more to ask waits until some of it was read.
pub const LARGE_ANSWERS_OF_CONNECTION: usize = 8;
/// Such places of a node.
pub const LARGE_ANSWERS: usize = 64;
/// How long such an answer may stand still while others wait for its place; then it is given up.
pub const LARGE_ANSWER_STALL_MS: u64 = 1_000;
/// Concurrent HTTP/2 streams of one connection.
pub const HTTP2_STREAMS: u32 = 1024;
/// HTTP/2 header list of one request.
pub const HTTP2_HEADER_BYTES: u32 = 16 << 10;
/// HTTP/2 streams that a peer may reset before they were served, see CVE-2023-44487.
pub const HTTP2_PENDING_RESETS: usize = 64;

/// Requests with writes that may wait to be proposed.
pub const PROPOSAL_QUEUE: usize = 4096;
/// Most groups of writes between their proposal and their replies.
pub const PROPOSALS_IN_FLIGHT: usize = 3;
/// Linearizable reads that may wait for a read index round; callers beyond wait to be queued.
pub const READ_QUEUE: usize = 4096;
/// Read index rounds under way; reads that come meanwhile share the next.
pub const READ_ROUNDS: usize = 2;
/// Writes of one group, which make one log entry; it ends with the request that crosses it.
pub const PROPOSAL_COMMANDS: usize = 1024;
/// Bytes of one group; it ends with the request that crosses it.
pub const PROPOSAL_BYTES: usize = 1 << 20;
/// Entries of one AppendEntries request.
pub const APPEND_ENTRIES: u64 = 4096;
/// Bytes of one AppendEntries request; a request ends with the entry that crosses it.
pub const APPEND_BYTES: usize = 2 << 20;
/// AppendEntries requests under way to one follower.
pub const APPEND_PIPELINE: usize = 16;
/// Recent log entries kept in memory, because replication and apply both read what was just appended.
pub const LOG_TAIL_BYTES: usize = 16 << 20;
/// Bytes that the log database collects before it sorts them into a table.
pub const LOG_WRITE_BUFFER_BYTES: usize = 16 << 20;
/// Size of a table of the state's records.
pub const STATE_TABLE_BYTES: usize = 64 << 20;
/// On a small disk, write buffers and tables are one part of so many of the disk at most: flushes and compactions take
/// several of them for a while, also when there is little room.
pub const TABLE_PARTS: u64 = 256;
/// And no less than this.
pub const TABLE_MIN_BYTES: usize = 1 << 20;
/// Must be free for a data directory to be opened. It takes about 64 KiB; manifests grow with the number of files.
pub const OPENING_BYTES: u64 = 4 << 20;
/// Commands that may wait for the commit thread.
pub const COMMIT_QUEUE: usize = 4096;
/// Bytes that one commit group gathers before it is written; it ends with the command that crosses it.
pub const COMMIT_GROUP_BYTES: usize = 8 << 20;
/// Commands at which a state batch is applied; it ends with the entry that crosses it.
pub const APPLY_BATCH: usize = 1024;
/// Bytes of changed records that gather in memory before they are written to the state database.
pub const STATE_LAYER_BYTES: usize = 16 << 20;
/// The same of events. Records are overwritten in memory, so that waiting saves writes of them; events are not.
pub const UNWRITTEN_EVENT_BYTES: usize = 4 << 20;
/// So many layers gather while the disk has no room for one.
pub const LAYERS_WITHOUT_ROOM: usize = 4;
/// What a node keeps free on its disk unless it is told: so much, or a share of a small disk.
pub const MIN_FREE_DISK_BYTES: u64 = 512 << 20;
/// That share: one part of so many.
pub const MIN_FREE_DISK_PARTS: u64 = 10;
/// Bytes of one snapshot chunk.
pub const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;
/// Files of one snapshot.
pub const SNAPSHOT_FILES: usize = 65_536;

/// Largest body that a gateway takes: a value of a key in base64, and what stands around it.
pub const HTTP_BODY_BYTES: usize = 2 << 20;
/// Headers of one request to a gateway, together.
pub const HTTP_HEADER_BYTES: usize = 32 << 10;
/// And how many.
pub const HTTP_HEADERS: usize = 64;
/// Of a gateway's places for requests and for event streams, one party holds one part of so many.
pub const SHARE_PARTS: usize = 8;
/// How long an event stream of a gateway goes on.
pub const STREAM_LIFE_MS: u64 = 3600 * 1000;
/// Longest `Idempotency-Key`.
pub const IDEMPOTENCY_KEY_BYTES: usize = 255;
/// Longest token that a gateway looks at.
pub const JWT_BYTES: usize = 8 << 10;
/// Furthest that a token issuer's clock and a gateway's may be apart.
pub const JWT_LEEWAY_MAX_MS: u64 = 5 * 60 * 1000;
/// Keys that tokens are checked with.
pub const JWT_KEYS: usize = 64;
/// Largest set of such keys, as it is read.
pub const JWT_KEY_SET_BYTES: usize = 256 << 10;
/// Shortest secret for HS256.
pub const JWT_SECRET_MIN_BYTES: usize = 32;
/// Shortest RSA modulus, 2048 bits.
pub const JWT_RSA_MIN_BYTES: usize = 256;
/// How long reading keys may take.
pub const JWT_KEYS_DEADLINE_MS: u64 = 5_000;
/// Tokens whose signature is known to be good.
pub const JWT_REMEMBERED: usize = 65_536;
/// Callers whose rates are known; of those beyond, the ones that were seen least are forgotten.
pub const RATES_REMEMBERED: usize = 65_536;

/// Longest e-mail address of an account.
pub const ADDRESS_BYTES: usize = 254;
/// Shortest password of an account, in characters.
pub const PASSWORD_MIN_CHARS: usize = 10;
/// Longest password, in bytes.
pub const PASSWORD_BYTES: usize = 256;
/// Memory that hashing a password takes.
pub const PASSWORD_HASH_KIB: u32 = 19 << 10;
/// And passes over it.
pub const PASSWORD_HASH_PASSES: u32 = 2;
/// Passwords that a gateway hashes at a time.
pub const PASSWORD_HASHES: usize = 2;
/// Passwords that wait for it.
pub const PASSWORD_HASHES_WAITING: usize = 64;
/// Attempts to register or log in as one user, within a window, from a browser that was logged in before.
pub const ATTEMPTS_PER_DEVICE: i64 = 10;
/// The same from other browsers at one network address.
pub const ATTEMPTS_PER_ACCOUNT_AND_NETWORK: i64 = 10;
/// The same from other browsers anywhere.
pub const ATTEMPTS_PER_ACCOUNT: i64 = 50;
/// Attempts of other browsers at one network address, as anybody.
pub const ATTEMPTS_PER_NETWORK: i64 = 100;
/// How often the form of one attempt may be sent again: more often than a page does by itself when answers are lost.
pub const ATTEMPTS_SENT_AGAIN: i64 = 16;
/// That window, from its first attempt on.
pub const ATTEMPTS_WINDOW_MS: u64 = 10 * 60 * 1000;
/// How long a browser that was logged in is known.
pub const DEVICE_TTL_MS: u64 = 180 * 24 * 3600 * 1000;
/// Shortest name of a form.
pub const NONCE_MIN_BYTES: usize = 16;
/// What is kept of a browser's description of itself.
pub const BROWSER_BYTES: usize = 160;

/// Longest time that a request may ask for; a request without a deadline gets it.
pub const REQUEST_DEADLINE_MS: u64 = 30_000;

const _: () = {
    assert!(TOKEN_MIN_BYTES < TOKEN_MAX_BYTES);
    assert!(LIST_DEFAULT <= LIST_MAX);
    // Base64 takes four bytes for three.
    assert!(VALUE_BYTES / 3 * 4 + KEY_BYTES * 6 < HTTP_BODY_BYTES);
    assert!(HTTP_BODY_BYTES < MESSAGE_BYTES);
    assert!(JWT_BYTES < HTTP_HEADER_BYTES);
    assert!(ADDRESS_BYTES <= USER_ID_BYTES);
    // Between a prefix and a hash or a network's address.
    assert!(ADDRESS_BYTES + 128 < KEY_BYTES);
    assert!(ATTEMPTS_PER_ACCOUNT_AND_NETWORK < ATTEMPTS_PER_ACCOUNT);
    assert!(ATTEMPTS_PER_ACCOUNT < ATTEMPTS_PER_NETWORK);
    assert!(DEVICE_TTL_MS <= TTL_MAX_MS);
    assert!(NONCE_MIN_BYTES <= IDEMPOTENCY_KEY_BYTES);
    assert!(2 * BROWSER_BYTES < CLIENT_ATTRIBUTE_BYTES);
    assert!(LIST_MAX < LIST_SCAN);
    assert!(LIST_PAGE_BYTES + VALUE_BYTES + KEY_BYTES < MESSAGE_BYTES);
    assert!(SESSION_BYTES < MESSAGE_BYTES);
    assert!(
        CART_LINES * (SKU_BYTES + LINE_ATTRIBUTE_BYTES + 64)
            + CART_NOTE_BYTES
            + CART_COUPONS * (COUPON_CODE_BYTES + 8)
            + 3 * (CART_ATTRIBUTE_BYTES + 8 * CART_ATTRIBUTES)
            < MESSAGE_BYTES
    );
    // The total of one line always fits; a cart's subtotal may not, and is checked.
    assert!(PRICE_MAX_MINOR_UNITS < i64::MAX / QUANTITY_MAX as i64);
    assert!(CART_LEASE_DEFAULT_MS <= CART_LEASE_MAX_MS);
    assert!(CART_LEASE_MAX_MS <= TTL_MAX_MS);
    assert!(CART_TTL_EMPTY_DEFAULT_MS <= TTL_MAX_MS);
    assert!(CART_TTL_GUEST_DEFAULT_MS <= TTL_MAX_MS);
    assert!(CART_TTL_USER_DEFAULT_MS <= TTL_MAX_MS);
    // A retry of an order's completion is recognised for at least as long as any other retry.
    assert!(REPLY_WINDOW_MS <= ORDER_TTL_MS);
    assert!(ORDER_TTL_MS <= TTL_MAX_MS);
    // The entry that crosses an append's bound may hold a group that was crossed by a whole frame.
    assert!(APPEND_BYTES + PROPOSAL_BYTES + MESSAGE_BYTES < PEER_MESSAGE_BYTES);
    assert!(SNAPSHOT_CHUNK_BYTES < PEER_MESSAGE_BYTES);
    assert!(WATCH_RESPONSE_BYTES + VALUE_BYTES + KEY_BYTES < MESSAGE_BYTES);
    assert!(WATCH_RESPONSE_BYTES < WATCH_TAIL_BYTES);
    assert!(EVENT_HISTORY_BYTES / EVENT_HISTORY_PARTS > VALUE_BYTES as u64);
    assert!(SESSION_IDLE_TTL_DEFAULT_MS <= SESSION_ABSOLUTE_TTL_DEFAULT_MS);
    assert!(SESSION_ABSOLUTE_TTL_DEFAULT_MS <= TTL_MAX_MS);
    assert!(LEASE_KEYS * KEY_BYTES < VALUE_BYTES);
    // What must be free on a small disk holds the tables of a compaction and more.
    assert!(MIN_FREE_DISK_PARTS * 24 <= TABLE_PARTS);
    assert!(MIN_FREE_DISK_BYTES >= 8 * STATE_TABLE_BYTES as u64);
    assert!(TABLE_MIN_BYTES <= LOG_WRITE_BUFFER_BYTES);
    assert!(CLIENT_WINDOW <= STREAM_IN_FLIGHT);
    assert!(LARGE_ANSWERS_OF_CONNECTION < LARGE_ANSWERS);
    // Who waits for answers that stand still has time left.
    assert!(4 * LARGE_ANSWER_STALL_MS < REQUEST_DEADLINE_MS);
    // What clients that do not read can make a node hold for them: answers to unary calls, large ones and all that are not.
    assert!(LARGE_ANSWERS * MESSAGE_BYTES <= 256 << 20);
    assert!(HTTP2_STREAMS as usize * LARGE_ANSWER_BYTES <= 64 << 20);
    // Many of the largest replies fit.
    assert!(16 * TXN_RESULT_BYTES <= CLIENT_WINDOW_BYTES);
    assert!(16 * CART_SNAPSHOT_BYTES <= CLIENT_WINDOW_BYTES);
    assert!(FRAME_OPERATIONS <= STREAM_IN_FLIGHT);
};
