/* The works of the benchmark with librabbitmq, as its examples show it. One line on the standard
   output: sample <messages> <nanoseconds> <processor nanoseconds> <memory in bytes>. */

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* newer releases have their headers in a folder, and keep these names for the old ones */
#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>

enum { WINDOW = 1000, PREFETCH = 250, IDLE = 200 };

static const char *NOWHERE = "lepus-peers-nowhere";
static const char *QUEUE = "lepus-peers-queue";

static const char *host, *user, *password, *vhost;
static int port;
static uint64_t limit_nanos, start_nanos, start_cpu;

static void die(const char *what) {
  fprintf(stderr, "rabbitmq-c: %s\n", what);
  exit(1);
}

static void check(amqp_rpc_reply_t reply, const char *what) {
  if (reply.reply_type != AMQP_RESPONSE_NORMAL) die(what);
}

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t cpu(void) {
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  return ((uint64_t)u.ru_utime.tv_sec + (uint64_t)u.ru_stime.tv_sec) * 1000000000u +
         ((uint64_t)u.ru_utime.tv_usec + (uint64_t)u.ru_stime.tv_usec) * 1000u;
}

static uint64_t memory(const char *name) {
  char line[256];
  uint64_t kilobytes = 0;
  FILE *status = fopen("/proc/self/status", "r");
  if (!status) return 0;
  while (fgets(line, sizeof line, status))
    if (!strncmp(line, name, strlen(name))) kilobytes = strtoull(line + strlen(name), NULL, 10);
  fclose(status);
  return kilobytes * 1024;
}

static void start(void) {
  start_cpu = cpu();
  start_nanos = now();
}

static int goes_on(void) { return now() - start_nanos < limit_nanos; }

static void report(uint64_t messages, uint64_t nanos, uint64_t used, uint64_t bytes) {
  printf("sample %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", messages, nanos, used, bytes);
}

static void stop(uint64_t messages) {
  uint64_t nanos = now() - start_nanos;
  report(messages, nanos, cpu() - start_cpu, memory("VmHWM:"));
}

static amqp_connection_state_t connect_one(void) {
  amqp_connection_state_t conn = amqp_new_connection();
  amqp_socket_t *socket = amqp_tcp_socket_new(conn);
  if (!socket || amqp_socket_open(socket, host, port)) die("cannot connect");
  check(amqp_login(conn, vhost, 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, user, password), "login");
  amqp_channel_open(conn, 1);
  check(amqp_get_rpc_reply(conn), "channel.open");
  return conn;
}

static uint32_t declare(amqp_connection_state_t conn) {
  amqp_queue_declare_ok_t *ok =
      amqp_queue_declare(conn, 1, amqp_cstring_bytes(QUEUE), 0, 0, 1, 0, amqp_empty_table);
  check(amqp_get_rpc_reply(conn), "queue.declare");
  return ok->message_count;
}

static void publish(amqp_connection_state_t conn, amqp_bytes_t body) {
  amqp_basic_properties_t properties;
  properties._flags = AMQP_BASIC_DELIVERY_MODE_FLAG;
  properties.delivery_mode = 2;
  if (amqp_basic_publish(conn, 1, amqp_empty_bytes, amqp_cstring_bytes(NOWHERE), 0, 0, &properties, body))
    die("basic.publish");
}

/* Waits for one confirm, and returns how many publishes are settled then. */
static uint64_t settle(amqp_connection_state_t conn, uint64_t settled) {
  amqp_frame_t frame;
  for (;;) {
    amqp_maybe_release_buffers(conn);
    if (amqp_simple_wait_frame(conn, &frame)) die("waiting for a confirm");
    if (frame.frame_type != AMQP_FRAME_METHOD) continue;
    if (frame.payload.method.id != AMQP_BASIC_ACK_METHOD) die("not a confirm");
    amqp_basic_ack_t *ack = frame.payload.method.decoded;
    if (!ack->multiple) return settled + 1;
    return ack->delivery_tag > settled ? ack->delivery_tag : settled;
  }
}

static void idle(void) {
  connect_one();
  uint64_t before = memory("VmRSS:");
  start();
  for (int i = 0; i < IDLE; i++) connect_one();
  uint64_t nanos = now() - start_nanos, used = cpu() - start_cpu;
  report(IDLE, nanos, used, (memory("VmRSS:") - before) / IDLE);
}

int main(int argc, char **argv) {
  if (argc != 13) die("wrong number of arguments");
  host = argv[1];
  port = atoi(argv[2]);
  user = argv[3];
  password = argv[4];
  vhost = argv[5];
  const char *work = argv[6];
  size_t size = strtoull(argv[7], NULL, 10);
  const char *queue = argv[8];
  limit_nanos = strtoull(argv[9], NULL, 10) * 1000000u;
  uint64_t stride = strtoull(argv[10], NULL, 10);
  uint64_t most = strtoull(argv[11], NULL, 10);
  int null_broker = atoi(argv[12]);

  if (!strcmp(work, "idle")) {
    idle();
    return 0;
  }
  amqp_connection_state_t conn = connect_one();
  amqp_bytes_t body = {size, malloc(size + 1)};
  memset(body.bytes, 'x', size);
  uint64_t count = 0, settled = 0;
  int confirms = !strncmp(work, "confirm", 7);

  if (!strcmp(work, "declare")) {
    for (start(); goes_on(); count++) {
      declare(conn);
      amqp_maybe_release_buffers(conn);
    }
    stop(count);
  } else if (!strcmp(work, "publish") || confirms) {
    uint64_t window = !strcmp(work, "confirm-each") ? 1 : confirms ? WINDOW : UINT64_MAX;
    if (confirms) {
      amqp_confirm_select(conn, 1);
      check(amqp_get_rpc_reply(conn), "confirm.select");
    }
    if (window == 1) stride = 1;
    for (start(); goes_on();)
      for (uint64_t i = 0; i < stride; i++) {
        while (count - settled >= window) settled = settle(conn, settled);
        publish(conn, body);
        count++;
      }
    while (confirms && settled < count) settled = settle(conn, settled);
    uint32_t counted = declare(conn);
    if (null_broker && counted != count) die("the broker did not get all messages");
    stop(count);
  } else {
    int acks = !strcmp(work, "consume-ack");
    if (acks) {
      amqp_basic_qos(conn, 1, 0, PREFETCH, 0);
      check(amqp_get_rpc_reply(conn), "basic.qos");
    }
    amqp_basic_consume(conn, 1, amqp_cstring_bytes(queue), amqp_empty_bytes, 0, !acks, 0, amqp_empty_table);
    check(amqp_get_rpc_reply(conn), "basic.consume");
    for (;;) {
      amqp_envelope_t envelope;
      amqp_maybe_release_buffers(conn);
      check(amqp_consume_message(conn, &envelope, NULL, 0), "waiting for a delivery");
      if (acks && amqp_basic_ack(conn, 1, envelope.delivery_tag, 0)) die("basic.ack");
      amqp_destroy_envelope(&envelope);
      if (!start_nanos) {
        start();
        continue;
      }
      count++;
      if (count + 1 >= most || (count % stride == 0 && !goes_on())) break;
    }
    stop(count);
  }
  return 0;
}
