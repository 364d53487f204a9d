// The floor: the least an nghttp2 server can do for a unary gRPC call.
//
// Each call's message is echoed with the headers and trailers gRPC asks for; nothing is
// decoded, routed, run or counted, and the path is not looked at. What a server that does
// those things may cost is measured against this one in the same run, so it has to be as
// fast as the router's own transport could be without its work: one thread a loop, one
// read and one write per ready socket and turn, windows so large that no update is ever
// sent, and buffers that are reused. The HTTP checks of nghttp2 stay on: the router pays
// for them too.
//
//   floor [--port N] [--loops N]     prints "listening PORT", serves until terminated
//
// Loop 0 owns the listening socket and deals connections in turn. A connection belongs to
// one loop from the moment it is in that loop's epoll set; only that loop touches or frees
// it. There is no other shared state.

#include <arpa/inet.h>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <string>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

constexpr size_t kReadBytes = 256 * 1024;
constexpr int kReadyMax = 256;
constexpr int32_t kWindow = (1 << 30) - 1;

struct Message {
  std::string bytes;
  size_t sent = 0;
};

// What one loop's connections share: scratch for the bytes of this read and this write,
// and messages whose memory the next call reuses.
struct Scratch {
  std::vector<uint8_t> in = std::vector<uint8_t>(kReadBytes);
  std::string out;
  std::vector<std::unique_ptr<Message>> spare;

  Message *take() {
    if (spare.empty()) return new Message;
    Message *message = spare.back().release();
    spare.pop_back();
    return message;
  }
  void give(Message *message) {
    message->bytes.clear();
    message->sent = 0;
    spare.emplace_back(message);
  }
};

struct Connection {
  int fd = -1;
  int epoll = -1;
  nghttp2_session *session = nullptr;
  Scratch *scratch = nullptr;
  std::string unsent;  // what a full socket did not take
  bool waits_for_room = false;
};

template <size_t N, size_t M>
nghttp2_nv header(const char (&name)[N], const char (&value)[M]) {
  auto bytes = [](const char *s) { return reinterpret_cast<uint8_t *>(const_cast<char *>(s)); };
  constexpr uint8_t flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE;
  return {bytes(name), bytes(value), N - 1, M - 1, flags};
}

const nghttp2_nv kHeaders[] = {header(":status", "200"),
                               header("content-type", "application/grpc")};
const nghttp2_nv kTrailers[] = {header("grpc-status", "0")};

int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
  if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
  auto *c = static_cast<Connection *>(user);
  nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, c->scratch->take());
  return 0;
}

int on_data(nghttp2_session *session, uint8_t, int32_t stream, const uint8_t *data,
            size_t size, void *) {
  auto *m = static_cast<Message *>(nghttp2_session_get_stream_user_data(session, stream));
  if (m) m->bytes.append(reinterpret_cast<const char *>(data), size);
  return 0;
}

// Says how much goes into the next DATA frame; `send_data` then moves it without a copy
// through nghttp2's own buffer.
ssize_t read_message(nghttp2_session *session, int32_t stream, uint8_t *, size_t room,
                     uint32_t *flags, nghttp2_data_source *source, void *) {
  auto *m = static_cast<Message *>(source->ptr);
  const size_t left = m->bytes.size() - m->sent;
  *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  if (left > room) return static_cast<ssize_t>(room);
  *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
  if (nghttp2_submit_trailer(session, stream, kTrailers, 1)) {
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  }
  return static_cast<ssize_t>(left);
}

int send_data(nghttp2_session *, nghttp2_frame *frame, const uint8_t *frame_header,
              size_t size, nghttp2_data_source *source, void *user) {
  auto *c = static_cast<Connection *>(user);
  auto *m = static_cast<Message *>(source->ptr);
  if (frame->data.padlen) return NGHTTP2_ERR_CALLBACK_FAILURE;  // we never pad
  c->scratch->out.append(reinterpret_cast<const char *>(frame_header), 9);
  c->scratch->out.append(m->bytes, m->sent, size);
  m->sent += size;
  return 0;
}

int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *) {
  const bool carries_call = frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS;
  if (!carries_call || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) return 0;
  void *message = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
  if (!message) return 0;
  nghttp2_data_provider body{{}, read_message};
  body.source.ptr = message;
  return nghttp2_submit_response(session, frame->hd.stream_id, kHeaders, 2, &body)
             ? NGHTTP2_ERR_CALLBACK_FAILURE
             : 0;
}

int on_close(nghttp2_session *session, int32_t stream, uint32_t, void *user) {
  auto *c = static_cast<Connection *>(user);
  auto *m = static_cast<Message *>(nghttp2_session_get_stream_user_data(session, stream));
  if (m) c->scratch->give(m);
  return 0;
}

nghttp2_session *open_session(Connection *c) {
  nghttp2_session_callbacks *callbacks;
  nghttp2_option *option;
  if (nghttp2_session_callbacks_new(&callbacks) || nghttp2_option_new(&option)) abort();
  nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
  nghttp2_session_callbacks_set_send_data_callback(callbacks, send_data);
  nghttp2_option_set_no_closed_streams(option, 1);
  nghttp2_session *session;
  if (nghttp2_session_server_new2(&session, callbacks, c, option)) abort();
  nghttp2_session_callbacks_del(callbacks);
  nghttp2_option_del(option);
  const nghttp2_settings_entry settings[] = {
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 1024},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, static_cast<uint32_t>(kWindow)}};
  nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings, 2);
  nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, kWindow);
  return session;
}

// The messages of streams still open are lost with the connection: nghttp2 reports no
// close for them, and a benchmark's connections end idle.
void close_connection(Connection *c) {
  nghttp2_session_del(c->session);
  close(c->fd);
  delete c;
}

// Writes once; what the socket does not take waits until it is writable again.
bool write_once(Connection *c, std::string &bytes) {
  size_t done = 0;
  if (!bytes.empty()) {
    const ssize_t n = send(c->fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR) return false;
    if (n > 0) done = static_cast<size_t>(n);
  }
  if (&bytes == &c->unsent) {
    bytes.erase(0, done);
  } else {
    c->unsent.assign(bytes, done, std::string::npos);
  }
  if (c->waits_for_room == !c->unsent.empty()) return true;
  c->waits_for_room = !c->unsent.empty();
  epoll_event event{};
  event.events = c->waits_for_room ? EPOLLOUT : EPOLLIN;  // a slow reader is not read
  event.data.ptr = c;
  return epoll_ctl(c->epoll, EPOLL_CTL_MOD, c->fd, &event) == 0;
}

bool answer(Connection *c) {
  std::string &out = c->scratch->out;
  out.clear();
  const uint8_t *chunk;
  ssize_t n;
  while ((n = nghttp2_session_mem_send(c->session, &chunk)) > 0) {
    out.append(reinterpret_cast<const char *>(chunk), static_cast<size_t>(n));
  }
  if (n < 0 || !write_once(c, out)) return false;
  return nghttp2_session_want_read(c->session) || nghttp2_session_want_write(c->session);
}

bool serve_ready(Connection *c, uint32_t events) {
  if (c->waits_for_room) {
    if (events & (EPOLLHUP | EPOLLERR)) return false;
    return write_once(c, c->unsent);
  }
  const ssize_t n = recv(c->fd, c->scratch->in.data(), kReadBytes, 0);
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  if (n == 0) return false;
  if (nghttp2_session_mem_recv(c->session, c->scratch->in.data(), static_cast<size_t>(n)) < 0) {
    return false;
  }
  return answer(c);
}

struct Loop {
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  Scratch scratch;
};

void accept_ready(int listener, std::vector<Loop> &loops, size_t &dealt) {
  int fd;
  while ((fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    Loop &loop = loops[dealt++ % loops.size()];
    auto *c = new Connection{fd, loop.epoll, nullptr, &loop.scratch, {}, false};
    c->session = open_session(c);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = c;
    if (epoll_ctl(loop.epoll, EPOLL_CTL_ADD, fd, &event)) close_connection(c);
  }
}

void run_loop(int listener, std::vector<Loop> &loops, size_t mine) {
  const int epoll = loops[mine].epoll;
  size_t dealt = 0;
  epoll_event ready[kReadyMax];
  for (;;) {
    const int count = epoll_wait(epoll, ready, kReadyMax, -1);
    for (int i = 0; i < count; ++i) {
      auto *c = static_cast<Connection *>(ready[i].data.ptr);
      if (!c) {
        accept_ready(listener, loops, dealt);
      } else if (!serve_ready(c, ready[i].events)) {
        close_connection(c);
      }
    }
  }
}

int listen_on(uint16_t port, uint16_t *bound) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (bind(fd, reinterpret_cast<sockaddr *>(&address), size) || listen(fd, 1024) ||
      getsockname(fd, reinterpret_cast<sockaddr *>(&address), &size)) {
    perror("floor: listen");
    exit(1);
  }
  *bound = ntohs(address.sin_port);
  return fd;
}

}  // namespace

int main(int argc, char **argv) {
  uint16_t port = 0;
  size_t loop_count = 1;
  for (int i = 1; i + 1 < argc; i += 2) {
    const unsigned long value = strtoul(argv[i + 1], nullptr, 10);
    if (!strcmp(argv[i], "--port")) port = static_cast<uint16_t>(value);
    if (!strcmp(argv[i], "--loops")) loop_count = value ? value : 1;
  }
  const int listener = listen_on(port, &port);
  std::vector<Loop> loops(loop_count);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = nullptr;
  epoll_ctl(loops[0].epoll, EPOLL_CTL_ADD, listener, &event);
  printf("listening %u\n", port);
  fflush(stdout);
  std::vector<std::thread> others;
  for (size_t i = 1; i < loop_count; ++i) {
    others.emplace_back([&loops, listener, i] { run_loop(listener, loops, i); });
  }
  run_loop(listener, loops, 0);
}
