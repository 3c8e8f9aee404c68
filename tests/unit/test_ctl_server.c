/* SPDX-License-Identifier: MIT */
#include "testdir.h"

#include "control/ctl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

/* A handler that counts. "hold" leaves a state; "wait" blocks until released. Of a file that comes along it notes which
 * one it is. */
struct probe {
	atomic_int handled, closed, closed_with_state, waiting;
	atomic_int nr_files;
	atomic_ullong file_ino;
	atomic_bool file_is_cloexec;
	pthread_mutex_t lock;
	pthread_cond_t released;
	bool release;
};

static void probe_wait(struct probe *probe)
{
	pthread_mutex_lock(&probe->lock);
	probe->waiting++;
	while (!probe->release)
		pthread_cond_wait(&probe->released, &probe->lock);
	pthread_mutex_unlock(&probe->lock);
}

static void probe_release(struct probe *probe)
{
	pthread_mutex_lock(&probe->lock);
	probe->release = true;
	pthread_cond_broadcast(&probe->released);
	pthread_mutex_unlock(&probe->lock);
}

static void probe_take_file(struct probe *probe, int fd)
{
	struct stat st;
	if (fd < 0)
		return;
	ck_assert_int_eq(fstat(fd, &st), 0);
	probe->file_ino = st.st_ino;
	probe->file_is_cloexec = (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0;
	probe->nr_files++;
}

static int probe_handle(void *arg, void **state, const json_t *request, int fd, json_t **ret_reply, struct err *err)
{
	struct probe *probe = arg;
	const char *word = ctl_string(request, "request");
	probe->handled++;
	probe_take_file(probe, fd);
	if (word == NULL || strcmp(word, "nonsense") == 0)
		return err_set_exit(err, ERR_EXIT_REFUSED, -EINVAL, "unknown request");
	if (strcmp(word, "latin1") == 0)
		return err_set(err, -EINVAL, "caf\xe9: no such file");
	if (strcmp(word, "bare") == 0)
		return -ENOSPC;
	if (strcmp(word, "hold") == 0 && *state == NULL)
		*state = strdup("held");
	if (strcmp(word, "wait") == 0)
		probe_wait(probe);
	if (strcmp(word, "long") == 0) {
		char *text = calloc(1, CTL_LINE_MAX + 1);
		memset(text, 'x', CTL_LINE_MAX);
		*ret_reply = json_pack("{s:s}", "text", text);
		free(text);
		return 0;
	}
	*ret_reply = json_pack("{s:O, s:b}", "echo", json_object_get(request, "request"), "held", *state != NULL);
	return 0;
}

static void probe_closed(void *arg, void *state)
{
	struct probe *probe = arg;
	probe->closed_with_state += state != NULL;
	free(state);
	probe->closed++;
}

static struct ctl_server *start(const char *path, struct probe *probe)
{
	struct ctl_server *server;
	struct err err = ERR_INIT;
	*probe = (struct probe){ .release = false };
	pthread_mutex_init(&probe->lock, NULL);
	pthread_cond_init(&probe->released, NULL);
	const struct ctl_handler handler = { .handle = probe_handle, .closed = probe_closed, .arg = probe };
	ck_assert_msg(ctl_server_start(path, &handler, &server, &err) == 0, "%s", err.text);
	return server;
}

static int count_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	ck_assert_ptr_nonnull(dir);
	int nr = 0;
	for (const struct dirent *item; (item = readdir(dir)) != NULL;)
		nr += item->d_name[0] != '.';
	closedir(dir);
	return nr - 1; /* the folder's own */
}

/* A plain socket, for clients that do not behave. */
static int raw_connect(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(fd, 0);
	ck_assert_msg(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "%s: %m", path);
	return fd;
}

static void raw_send(int fd, const char *text, size_t len)
{
	while (len > 0) {
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
		if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
			return;
		ck_assert_int_gt(n, 0);
		text += n;
		len -= (size_t)n;
	}
}

/* Sends text in one message with nr times file. */
static void raw_send_files(int fd, const char *text, int file, unsigned int nr)
{
	enum { MOST = 253 }; /* the kernel's */
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(MOST * sizeof(int))];
	} control = { .bytes = { 0 } };
	ck_assert_uint_le(nr, MOST);
	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(nr * sizeof(int));
	for (unsigned int i = 0; i < nr; i++)
		memcpy(CMSG_DATA(&control.header) + i * sizeof(int), &file, sizeof(int));
	struct iovec part = { .iov_base = (void *)text, .iov_len = strlen(text) };
	struct msghdr message = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = CMSG_SPACE(nr * sizeof(int)),
	};
	ck_assert_int_eq(sendmsg(fd, &message, MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* All that comes until the server closes the connection. */
static size_t raw_receive_all(int fd, char *ret_text, size_t size)
{
	size_t len = 0;
	for (;;) {
		ssize_t n = recv(fd, ret_text + len, size - 1 - len, 0);
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	ret_text[len] = '\0';
	return len;
}

static json_t *make_request(const char *word)
{
	json_t *request = json_pack("{s:s}", "request", word);
	ck_assert_ptr_nonnull(request);
	return request;
}

/* ctl_call() with a word; *ret_reply may be NULL. */
static int call(
	struct ctl_client *client, const char *word, unsigned int timeout_s, json_t **ret_reply, struct err *err)
{
	json_t *request = make_request(word);
	json_t *reply = NULL;
	*err = ERR_INIT;
	int r = ctl_call(client, request, timeout_s, &reply, err);
	json_decref(request);
	if (ret_reply != NULL)
		*ret_reply = reply;
	else
		json_decref(reply);
	return r;
}

static int try_connect(const char *path, struct ctl_client **ret_client, struct err *err)
{
	struct stat st;
	struct ctl_instance instance = { .uid = stat(path, &st) == 0 ? st.st_uid : geteuid() };
	snprintf(instance.socket, sizeof(instance.socket), "%s", path);
	return ctl_connect(&instance, ret_client, err);
}

static struct ctl_client *connect_to(const char *path)
{
	struct ctl_client *client;
	struct err err = ERR_INIT;
	ck_assert_msg(try_connect(path, &client, &err) == 0, "%s", err.text);
	return client;
}

static void wait_until(atomic_int *counter, int value)
{
	while (atomic_load(counter) < value)
		poll(NULL, 0, 1);
}

START_TEST(test_dialogue)
{
	struct probe probe;
	struct err err;
	json_t *reply;
	const char *path = testdir_path("dialogue");
	struct ctl_server *server = start(path, &probe);
	struct ctl_client *client = connect_to(path);
	ck_assert_int_eq(call(client, "hello", 0, &reply, &err), 0);
	ck_assert_str_eq(ctl_string(reply, "echo"), "hello");
	ck_assert(json_is_true(json_object_get(reply, "ok")));
	ck_assert(json_is_false(json_object_get(reply, "held")));
	json_decref(reply);
	ck_assert_int_lt(call(client, "nonsense", 5, NULL, &err), 0);
	ck_assert_int_eq(err.exit, ERR_EXIT_REFUSED);
	ck_assert_str_eq(err.text, "unknown request");
	/* Errors always arrive, and never as something that is not JSON. */
	ck_assert_int_lt(call(client, "latin1", 5, NULL, &err), 0);
	ck_assert_str_eq(err.text, "caf?: no such file");
	ck_assert_int_lt(call(client, "bare", 5, NULL, &err), 0);
	ck_assert_int_eq(err.exit, ERR_EXIT_FAILED);
	ck_assert_str_eq(err.text, "No space left on device");
	ck_assert_int_lt(call(client, "long", 5, NULL, &err), 0);
	ck_assert_int_eq(err.exit, ERR_EXIT_FAILED);
	ck_assert_int_eq(call(client, "hold", 5, NULL, &err), 0);
	ck_assert_int_eq(call(client, "again", 5, &reply, &err), 0);
	ck_assert(json_is_true(json_object_get(reply, "held")));
	json_decref(reply);
	ck_assert_int_eq(probe.closed, 0);
	ctl_disconnect(client);
	wait_until(&probe.closed, 1);
	ctl_server_stop(server);
	ck_assert_int_eq(probe.closed, 1);
	ck_assert_int_eq(probe.closed_with_state, 1);
	ck_assert_int_lt(access(path, F_OK), 0);
}
END_TEST

/* Requests sent in one go, and in pieces, are answered in order. */
START_TEST(test_pipelined)
{
	struct probe probe;
	char text[4096];
	const char *path = testdir_path("pipelined");
	struct ctl_server *server = start(path, &probe);
	int fd = raw_connect(path);
	static const char both[] = "{\"request\":\"a\"}\n{\"request\":\"b\"}\n{\"requ";
	raw_send(fd, both, sizeof(both) - 1);
	wait_until(&probe.handled, 2);
	raw_send(fd, "est\":\"c\"}\n{\"half", 16);
	shutdown(fd, SHUT_WR);
	raw_receive_all(fd, text, sizeof(text));
	ck_assert_str_eq(text,
		"{\"echo\":\"a\",\"held\":false,\"ok\":true}\n{\"echo\":\"b\",\"held\":false,\"ok\":true}\n"
		"{\"echo\":\"c\",\"held\":false,\"ok\":true}\n");
	close(fd);
	ctl_server_stop(server);
	/* The half frame at the end was nobody's request. */
	ck_assert_int_eq(probe.handled, 3);
	ck_assert_int_eq(probe.closed, 1);
}
END_TEST

START_TEST(test_garbage)
{
	static const char *const lines[] = { "\n", "hello\n", "[1]\n", "{\"a\":1,\"a\":2}\n", "{\"a\":1} x\n",
		"\xff\xfe\n", "{\"request\":\"\\u0000\"}\n", "7\n" };
	struct probe probe;
	char text[4096];
	const char *path = testdir_path("garbage");
	struct ctl_server *server = start(path, &probe);
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		int fd = raw_connect(path);
		raw_send(fd, lines[i], strlen(lines[i]));
		raw_receive_all(fd, text, sizeof(text));
		ck_assert_msg(strstr(text, "\"ok\":false") != NULL, "%s answered %s", lines[i], text);
		close(fd);
	}
	ctl_server_stop(server);
	ck_assert_int_eq(probe.handled, 0);
	ck_assert_int_eq(probe.closed, 8);
}
END_TEST

/* A line that fits is served, one that is a byte longer is refused. */
START_TEST(test_line_limit)
{
	struct probe probe;
	static char line[CTL_LINE_MAX + 1], text[CTL_LINE_MAX + 4096];
	const char *path = testdir_path("limit");
	struct ctl_server *server = start(path, &probe);
	const char head[] = "{\"request\":\"hello\",\"x\":\"";
	memset(line, 'x', sizeof(line));
	memcpy(line, head, sizeof(head) - 1);
	memcpy(line + CTL_LINE_MAX - 3, "\"}\n", 3);
	int fd = raw_connect(path);
	raw_send(fd, line, CTL_LINE_MAX);
	shutdown(fd, SHUT_WR);
	raw_receive_all(fd, text, sizeof(text));
	ck_assert_str_eq(text, "{\"echo\":\"hello\",\"held\":false,\"ok\":true}\n");
	close(fd);

	fd = raw_connect(path);
	line[CTL_LINE_MAX - 3] = line[CTL_LINE_MAX - 2] = line[CTL_LINE_MAX - 1] = 'x';
	raw_send(fd, line, CTL_LINE_MAX);
	raw_receive_all(fd, text, sizeof(text));
	ck_assert_ptr_nonnull(strstr(text, "too long"));
	close(fd);
	ctl_server_stop(server);
	ck_assert_int_eq(probe.handled, 1);
	ck_assert_int_eq(probe.closed, 2);
}
END_TEST

/* Who says nothing, or sends a byte now and then, is let go by the server. */
START_TEST(test_idle)
{
	struct probe probe;
	const char *path = testdir_path("idle");
	struct ctl_server *server = start(path, &probe);
	int silent = raw_connect(path), slow = raw_connect(path);
	struct pollfd wanted = { .fd = silent, .events = POLLIN };
	while (poll(&wanted, 1, 200) == 0)
		raw_send(slow, " ", 1);
	char text[64];
	ck_assert_uint_eq(raw_receive_all(silent, text, sizeof(text)), 0);
	raw_receive_all(slow, text, sizeof(text));
	wait_until(&probe.closed, 2);
	close(silent);
	close(slow);
	ctl_server_stop(server);
	ck_assert_int_eq(probe.closed, 2);
}
END_TEST

/* More at once than it serves: each is either answered or told that it is busy, and afterwards it serves again. */
START_TEST(test_many)
{
	enum { NR = 200 };
	struct probe probe;
	struct ctl_client *clients[NR];
	struct err err;
	int answered = 0, busy = 0;
	const char *path = testdir_path("many");
	struct ctl_server *server = start(path, &probe);
	for (int i = 0; i < NR; i++)
		clients[i] = connect_to(path);
	for (int i = 0; i < NR; i++) {
		int r = call(clients[i], "hello", 60, NULL, &err);
		answered += r == 0;
		busy += r < 0 && strstr(err.text, "busy") != NULL;
		ck_assert_msg(answered + busy == i + 1, "%s", err.text);
	}
	ck_assert_int_ge(answered, 1);
	ck_assert_int_ge(busy, NR - 2 * (int)CTL_CONNECTIONS_MAX);
	for (int i = 0; i < NR; i++)
		ctl_disconnect(clients[i]);
	wait_until(&probe.closed, answered);
	for (int i = 0; i < NR; i++) {
		struct ctl_client *client = connect_to(path);
		ck_assert_msg(
			call(client, "hello", 60, NULL, &err) == 0 || strstr(err.text, "busy") != NULL, "%s", err.text);
		ctl_disconnect(client);
	}
	ctl_server_stop(server);
	/* One closed for each connection that was served: so many as were answered at the least. */
	ck_assert_int_ge(probe.closed, probe.handled);
}
END_TEST

static void *stop_main(void *server)
{
	ctl_server_stop(server);
	return NULL;
}

/* Stop wakes idle connections at once, and waits for a handler that is at work. */
START_TEST(test_stop)
{
	enum { NR_IDLE = 20 };
	struct probe probe;
	struct err err;
	struct ctl_client *idle[NR_IDLE];
	const char *path = testdir_path("stop");
	struct ctl_server *server = start(path, &probe);
	for (int i = 0; i < NR_IDLE; i++) {
		idle[i] = connect_to(path);
		ck_assert_int_eq(call(idle[i], "hold", 0, NULL, &err), 0);
	}
	struct ctl_client *busy = connect_to(path);
	json_t *request = make_request("wait");
	ck_assert_int_eq(ctl_send(busy, request, -1, &err), 0);
	json_decref(request);
	wait_until(&probe.waiting, 1);

	pthread_t stopper;
	ck_assert_int_eq(pthread_create(&stopper, NULL, stop_main, server), 0);
	wait_until(&probe.closed, NR_IDLE);
	ck_assert_int_eq(probe.closed, NR_IDLE);
	probe_release(&probe);
	pthread_join(stopper, NULL);
	ck_assert_int_eq(probe.closed, NR_IDLE + 1);
	ck_assert_int_eq(probe.closed_with_state, NR_IDLE);
	json_t *reply;
	ck_assert_int_eq(ctl_receive(busy, 5, &reply, &err), -EIO);
	ctl_disconnect(busy);
	for (int i = 0; i < NR_IDLE; i++) {
		ck_assert_int_eq(call(idle[i], "hello", 5, NULL, &err), -EIO);
		ctl_disconnect(idle[i]);
	}
	ctl_server_stop(NULL);
}
END_TEST

START_TEST(test_receive_timeout)
{
	struct probe probe;
	struct err err;
	const char *path = testdir_path("timeout");
	struct ctl_server *server = start(path, &probe);
	struct ctl_client *client = connect_to(path);
	ck_assert_int_eq(call(client, "wait", 1, NULL, &err), -ETIMEDOUT);
	ctl_disconnect(client);
	probe_release(&probe);
	ctl_server_stop(server);
	ck_assert_int_eq(probe.closed, 1);
}
END_TEST

/* A reader that takes nothing ends with its connection, not with the server. */
START_TEST(test_slow_reader)
{
	struct probe probe;
	struct err err;
	const char *path = testdir_path("slow");
	struct ctl_server *server = start(path, &probe);
	int fd = raw_connect(path);
	static const char line[] = "{\"request\":\"hello\"}\n";
	/* Until its replies fill the socket and the server gives up: then sending fails. */
	ssize_t n;
	do {
		n = send(fd, line, sizeof(line) - 1, MSG_NOSIGNAL);
	} while (n > 0);
	ck_assert_msg(errno == EPIPE || errno == ECONNRESET, "%m");
	close(fd);
	wait_until(&probe.closed, 1);
	struct ctl_client *client = connect_to(path);
	ck_assert_int_eq(call(client, "hello", 60, NULL, &err), 0);
	ctl_disconnect(client);
	ctl_server_stop(server);
	ck_assert_int_eq(probe.closed, 2);
}
END_TEST

START_TEST(test_socket_file)
{
	static const mode_t masks[] = { 0, 0777 };
	struct probe probe;
	struct stat st;
	for (int i = 0; i < 2; i++) {
		mode_t before = umask(masks[i]);
		struct ctl_server *server = start(testdir_path("mode"), &probe);
		umask(before);
		ck_assert_int_eq(stat(testdir_path("mode"), &st), 0);
		ck_assert_uint_eq(st.st_mode & 07777, 0600);
		ctl_server_stop(server);
	}
}
END_TEST

START_TEST(test_stale_and_live)
{
	struct probe probe, other_probe;
	struct ctl_server *other;
	struct err err = ERR_INIT;
	const char *path = testdir_path("taken");
	/* Stale: bound once, nobody listens. */
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	close(fd);
	struct ctl_server *server = start(path, &probe);
	const struct ctl_handler handler = { .handle = probe_handle, .closed = probe_closed, .arg = &other_probe };
	ck_assert_int_eq(ctl_server_start(path, &handler, &other, &err), -EADDRINUSE);
	/* The refused one left it as it was. */
	struct ctl_client *client = connect_to(path);
	ck_assert_int_eq(call(client, "hello", 60, NULL, &err), 0);
	ctl_disconnect(client);
	/* A socket that took the place of ours is not ours to remove. */
	ck_assert_int_eq(unlink(path), 0);
	other = start(path, &other_probe);
	ctl_server_stop(server);
	ck_assert_int_eq(access(path, F_OK), 0);
	ctl_server_stop(other);

	FILE *file = fopen(path, "w");
	fclose(file);
	ck_assert_int_eq(ctl_server_start(path, &handler, &other, &err), -EEXIST);
	ck_assert_int_eq(access(path, F_OK), 0);
	ck_assert_int_eq(ctl_server_start(testdir_path("missing/sock"), &handler, &other, &err), -ENOENT);
	ck_assert_int_lt(try_connect(path, &client, &err), 0);
	ck_assert_int_lt(try_connect(testdir_path("nothing"), &client, &err), 0);
}
END_TEST

/* Longer than sun_path. */
START_TEST(test_long_path)
{
	struct probe probe;
	struct err err;
	char path[PATH_MAX];
	snprintf(path, sizeof(path), "%s/%0150d", testdir, 0);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	strcat(path, "/sock");
	struct ctl_server *server = start(path, &probe);
	struct ctl_client *client = connect_to(path);
	ck_assert_int_eq(call(client, "hello", 60, NULL, &err), 0);
	ctl_disconnect(client);
	ctl_server_stop(server);
	ck_assert_int_lt(access(path, F_OK), 0);
}
END_TEST

/* Another user is refused, also where the modes of folder and socket would let it in. */
START_TEST(test_other_user)
{
	struct probe probe;
	struct err err;
	const char *path = testdir_path("other");
	struct ctl_server *server = start(path, &probe);
	ck_assert_int_eq(chmod(path, 0666), 0);
	ck_assert_int_eq(chmod(testdir, 0755), 0);
	/* A process of its own: a change of user is one of all threads, the server's too. */
	pid_t child = fork();
	if (child == 0) {
		if (setuid(65534) < 0)
			_exit(100);
		struct ctl_client *client = connect_to(path);
		_exit(call(client, "hello", 60, NULL, &err) == -EREMOTEIO ? (int)err.exit : 101);
	}
	int status;
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), ERR_EXIT_REFUSED);
	ctl_server_stop(server);
	ck_assert_int_eq(probe.handled, 0);
}
END_TEST

/* Out of descriptors it waits, and serves again when there are some. */
START_TEST(test_no_descriptors)
{
	struct probe probe;
	struct err err;
	struct rlimit before, none;
	const char *path = testdir_path("descriptors");
	struct ctl_server *server = start(path, &probe);
	struct ctl_client *client = connect_to(path);
	ck_assert_int_eq(call(client, "hello", 60, NULL, &err), 0);
	int waiting = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	/* poll(2) takes no more entries than this, and it uses two. */
	none.rlim_cur = 3;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	ck_assert_int_eq(connect(waiting, (struct sockaddr *)&address, sizeof(address)), 0);
	raw_send(waiting, "{\"request\":\"late\"}\n", 19);
	ck_assert_int_eq(call(client, "hello", 60, NULL, &err), 0);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
	shutdown(waiting, SHUT_WR);
	char text[256];
	raw_receive_all(waiting, text, sizeof(text));
	ck_assert_ptr_nonnull(strstr(text, "late"));
	close(waiting);
	ctl_disconnect(client);
	ctl_server_stop(server);
	ck_assert_int_eq(probe.closed, 2);
}
END_TEST

/* ctl_send() with a word and a file, and the reply. */
static int call_with(struct ctl_client *client, json_t *request, int file, struct err *err)
{
	json_t *reply = NULL;
	*err = ERR_INIT;
	int r = ctl_send(client, request, file, err);
	if (r == 0)
		r = ctl_receive(client, 60, &reply, err);
	json_decref(request);
	json_decref(reply);
	return r;
}

/* A file of the test's own, and its inode. */
static int make_file(const char *name, ino_t *ret_ino)
{
	struct stat st;
	int file = open(testdir_path(name), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_ge(file, 0);
	ck_assert_int_eq(fstat(file, &st), 0);
	*ret_ino = st.st_ino;
	return file;
}

/* It is the same file, with this request and no other, and is closed once the reply is here. */
START_TEST(test_file)
{
	static char padding[CTL_LINE_MAX - 64];
	struct probe probe;
	struct err err;
	ino_t first_ino, second_ino;
	const char *path = testdir_path("file");
	struct ctl_server *server = start(path, &probe);
	int first = make_file("first", &first_ino), second = make_file("second", &second_ino);
	struct ctl_client *client = connect_to(path);
	ck_assert_int_eq(call(client, "hello", 60, NULL, &err), 0);
	int before = count_descriptors();
	ck_assert_int_eq(call_with(client, make_request("hello"), first, &err), 0);
	ck_assert_int_eq(count_descriptors(), before);
	ck_assert_int_eq(probe.nr_files, 1);
	ck_assert_uint_eq(probe.file_ino, first_ino);
	ck_assert(probe.file_is_cloexec);
	ck_assert_int_eq(call(client, "hello", 60, NULL, &err), 0);
	ck_assert_int_eq(probe.nr_files, 1);
	/* Also where the handler fails, and where the line is many messages. */
	ck_assert_int_eq(call_with(client, make_request("nonsense"), second, &err), -EREMOTEIO);
	ck_assert_int_eq(count_descriptors(), before);
	ck_assert_int_eq(probe.nr_files, 2);
	ck_assert_uint_eq(probe.file_ino, second_ino);
	memset(padding, 'x', sizeof(padding) - 1);
	ck_assert_int_eq(call_with(client, json_pack("{s:s, s:s}", "request", "hello", "x", padding), first, &err), 0);
	ck_assert_int_eq(count_descriptors(), before);
	ck_assert_int_eq(probe.nr_files, 3);
	ck_assert_uint_eq(probe.file_ino, first_ino);
	/* Ours are still open, and what is not open is not sent. */
	ck_assert_int_ge(fcntl(first, F_GETFD), 0);
	close(first);
	close(second);
	ck_assert_int_eq(call_with(client, make_request("hello"), first, &err), -EBADF);
	ctl_disconnect(client);
	ctl_server_stop(server);
	ck_assert_int_eq(probe.nr_files, 3);
}
END_TEST

/* With each byte of the line, sent in two messages; and the next request, sent on without waiting, has none. */
START_TEST(test_file_in_pieces)
{
	static const char line[] = "{\"request\":\"a\"}\n";
	enum { LEN = sizeof(line) - 1 };
	struct probe probe;
	ino_t ino;
	char head[sizeof(line)], text[256];
	const char *path = testdir_path("pieces");
	struct ctl_server *server = start(path, &probe);
	int file = make_file("sent", &ino), before = count_descriptors();
	for (int i = 0; i < LEN; i++) {
		int fd = raw_connect(path);
		snprintf(head, sizeof(head), "%.*s", i, line);
		raw_send(fd, head, (size_t)i);
		raw_send_files(fd, line + i, file, 1);
		raw_send(fd, "{\"request\":\"b\"}\n", LEN);
		shutdown(fd, SHUT_WR);
		raw_receive_all(fd, text, sizeof(text));
		ck_assert_str_eq(text, "{\"echo\":\"a\",\"held\":false,\"ok\":true}\n"
				       "{\"echo\":\"b\",\"held\":false,\"ok\":true}\n");
		close(fd);
		wait_until(&probe.closed, i + 1);
		ck_assert_int_eq(probe.nr_files, i + 1);
		ck_assert_uint_eq(probe.file_ino, ino);
	}
	close(file);
	ctl_server_stop(server);
	ck_assert_int_eq(count_descriptors(), before - 3); /* listener, eventfd, file */
}
END_TEST

/* What a client that breaks the rules sends: up to two messages, the files of each, and what is answered (NULL:
 * nothing). */
struct hostile {
	const char *text[2];
	unsigned int nr_files[2];
	bool ends; /* the client sends no more */
	const char *answer;
};

/* The server is held back by a request until all is sent: what it finds in one go is no race. */
static void hostile_play(const char *path, struct probe *probe, const struct hostile *hostile, int file)
{
	char text[1024];
	int fd = raw_connect(path), waiting = probe->waiting, handled = probe->handled, closed = probe->closed;
	probe->release = false;
	raw_send(fd, "{\"request\":\"wait\"}\n", 19);
	wait_until(&probe->waiting, waiting + 1);
	for (int i = 0; i < 2 && hostile->text[i] != NULL; i++) {
		if (hostile->nr_files[i] > 0)
			raw_send_files(fd, hostile->text[i], file, hostile->nr_files[i]);
		else
			raw_send(fd, hostile->text[i], strlen(hostile->text[i]));
	}
	if (hostile->ends)
		shutdown(fd, SHUT_WR);
	probe_release(probe);
	raw_receive_all(fd, text, sizeof(text));
	const char *rest = strchr(text, '\n');
	ck_assert_msg(rest != NULL, "%s", text);
	if (hostile->answer != NULL)
		ck_assert_msg(strstr(rest, hostile->answer) != NULL, "%s answered %s", hostile->text[0], rest);
	else
		ck_assert_str_eq(rest, "\n");
	close(fd);
	wait_until(&probe->closed, closed + 1);
	ck_assert_int_eq(probe->handled, handled + 1);
}

START_TEST(test_file_hostile)
{
#define LINE "{\"request\":\"a\"}\n"
#define RULE "may bring one open file"
	static const struct hostile all[] = {
		{ { LINE }, { 2 }, .answer = RULE },
		{ { LINE }, { 3 }, .answer = RULE },
		{ { LINE }, { 253 }, .answer = RULE },
		{ { "{\"requ", "est\":\"a\"}\n" }, { 1, 1 }, .answer = RULE },
		{ { "{\"requ", "est\":\"a\"}\n" }, { 1, 2 }, .answer = RULE },
		{ { LINE LINE }, { 1 }, .answer = RULE },
		{ { LINE, LINE }, { 0, 1 }, .answer = RULE },
		{ { LINE, "{" }, { 0, 1 }, .answer = RULE },
		/* Garbage. */
		{ { "hello\n" }, { 1 }, .answer = "not a JSON object" },
		{ { "hello\n" }, { 2 }, .answer = RULE },
		/* The end of the connection, in the middle of a line and after garbage. */
		{ { "{\"requ" }, { 1 }, .ends = true },
		{ { "{\"requ", "est" }, { 1, 0 }, .ends = true },
		{ { "{\"requ" }, { 2 }, .ends = true, .answer = RULE },
		/* The second is never read. */
		{ { "hello\n", LINE }, { 1, 1 }, .answer = "not a JSON object" },
		{ { "7\n", LINE }, { 0, 1 }, .answer = RULE },
	};
	struct probe probe;
	ino_t ino;
	const char *path = testdir_path("hostile");
	struct ctl_server *server = start(path, &probe);
	int file = make_file("trap", &ino), before = count_descriptors();
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		hostile_play(path, &probe, &all[i], file);
		/* The handler saw none, and its connection's own descriptor goes a moment after closed. */
		ck_assert_int_eq(probe.nr_files, 0);
	}
	ctl_server_stop(server);
	ck_assert_int_eq(count_descriptors(), before - 2); /* listener, eventfd */
	close(file);
}
END_TEST

/* A line too long, and silence, with a file in hand. */
START_TEST(test_file_never_used)
{
	static char line[CTL_LINE_MAX + 1];
	struct probe probe;
	ino_t ino;
	char text[256];
	const char *path = testdir_path("unused");
	struct ctl_server *server = start(path, &probe);
	int file = make_file("unused.file", &ino), before = count_descriptors();
	memset(line, 'x', CTL_LINE_MAX);
	int silent = raw_connect(path), long_one = raw_connect(path);
	raw_send_files(silent, "{", file, 1);
	raw_send_files(long_one, "{", file, 1);
	raw_send(long_one, line, CTL_LINE_MAX - 1);
	raw_receive_all(long_one, text, sizeof(text));
	ck_assert_ptr_nonnull(strstr(text, "too long"));
	ck_assert_uint_eq(raw_receive_all(silent, text, sizeof(text)), 0);
	close(silent);
	close(long_one);
	ctl_server_stop(server);
	ck_assert_int_eq(count_descriptors(), before - 2);
	ck_assert_int_eq(probe.handled, 0);
	close(file);
}
END_TEST

/* No descriptor is free for it: that is said, and the server goes on. */
START_TEST(test_file_no_descriptors)
{
	struct probe probe;
	struct err err;
	struct rlimit before, none;
	ino_t ino;
	const char *path = testdir_path("full");
	struct ctl_server *server = start(path, &probe);
	int file = make_file("full.file", &ino);
	struct ctl_client *client = connect_to(path);
	ck_assert_int_eq(call(client, "hello", 60, NULL, &err), 0);
	int nr = count_descriptors();
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	none.rlim_cur = 3; /* as in test_no_descriptors */
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	int r = call_with(client, make_request("hello"), file, &err);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
	ck_assert_int_eq(r, -EREMOTEIO);
	ck_assert_ptr_nonnull(strstr(err.text, "too many open"));
	ctl_disconnect(client);
	wait_until(&probe.closed, 1);
	client = connect_to(path);
	ck_assert_int_eq(call_with(client, make_request("hello"), file, &err), 0);
	ctl_disconnect(client);
	ctl_server_stop(server);
	ck_assert_int_eq(count_descriptors(), nr - 4); /* both ends, listener, eventfd */
	ck_assert_int_eq(probe.nr_files, 1);
	close(file);
}
END_TEST

static void *hostile_server_main(void *arg)
{
	const int *fds = arg;
	char text[256];
	int fd = accept4(fds[0], NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_gt(recv(fd, text, sizeof(text), 0), 0);
	raw_send_files(fd, "{\"ok\":true", fds[1], 1);
	raw_send_files(fd, "}\n{\"ok\":true}\n", fds[1], 253);
	raw_send_files(fd, "{\"o", fds[1], 2);
	close(fd);
	return NULL;
}

/* Replies bring no files: a client takes none. */
START_TEST(test_file_in_reply)
{
	struct err err = ERR_INIT;
	json_t *reply;
	ino_t ino;
	pthread_t thread;
	const char *path = testdir_path("giver");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	int fds[2] = { socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), make_file("gift", &ino) };
	ck_assert_int_eq(bind(fds[0], (struct sockaddr *)&address, sizeof(address)), 0);
	ck_assert_int_eq(listen(fds[0], 1), 0);
	struct ctl_client *client = connect_to(path);
	int before = count_descriptors();
	ck_assert_int_eq(pthread_create(&thread, NULL, hostile_server_main, fds), 0);
	ck_assert_int_eq(call_with(client, make_request("hello"), -1, &err), 0);
	ck_assert_int_eq(ctl_receive(client, 60, &reply, &err), 0);
	json_decref(reply);
	ck_assert_int_eq(ctl_receive(client, 60, &reply, &err), -EIO);
	pthread_join(thread, NULL);
	ck_assert_int_eq(count_descriptors(), before);
	ctl_disconnect(client);
	close(fds[0]);
	close(fds[1]);
}
END_TEST

START_TEST(test_grammar)
{
	json_t *object = json_pack("{s:s, s:i, s:i, s:f}", "word", "x", "seven", 7, "minus", -1, "real", 1.5);
	uint64_t value;
	ck_assert_str_eq(ctl_string(object, "word"), "x");
	ck_assert_ptr_null(ctl_string(object, "seven"));
	ck_assert_ptr_null(ctl_string(object, "none"));
	ck_assert_int_eq(ctl_u64(object, "seven", &value), 0);
	ck_assert_uint_eq(value, 7);
	ck_assert_int_eq(ctl_u64(object, "none", &value), -ENOENT);
	ck_assert_int_eq(ctl_u64(object, "minus", &value), -EINVAL);
	ck_assert_int_eq(ctl_u64(object, "real", &value), -EINVAL);
	ck_assert_int_eq(ctl_u64(object, "word", &value), -EINVAL);
	json_decref(object);
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("ctl_server");
	tcase_add_unchecked_fixture(tcase, testdir_setup, testdir_teardown);
	tcase_set_timeout(tcase, 120);
	tcase_add_test(tcase, test_dialogue);
	tcase_add_test(tcase, test_pipelined);
	tcase_add_test(tcase, test_garbage);
	tcase_add_test(tcase, test_line_limit);
	tcase_add_test(tcase, test_idle);
	tcase_add_test(tcase, test_many);
	tcase_add_test(tcase, test_stop);
	tcase_add_test(tcase, test_receive_timeout);
	tcase_add_test(tcase, test_slow_reader);
	tcase_add_test(tcase, test_socket_file);
	tcase_add_test(tcase, test_stale_and_live);
	tcase_add_test(tcase, test_long_path);
	if (geteuid() == 0)
		tcase_add_test(tcase, test_other_user);
	else
		fprintf(stderr, "not root, so that no other user can be played: test_other_user is left out\n");
	tcase_add_test(tcase, test_no_descriptors);
	tcase_add_test(tcase, test_file);
	tcase_add_test(tcase, test_file_in_pieces);
	tcase_add_test(tcase, test_file_hostile);
	tcase_add_test(tcase, test_file_never_used);
	tcase_add_test(tcase, test_file_no_descriptors);
	tcase_add_test(tcase, test_file_in_reply);
	tcase_add_test(tcase, test_grammar);
	return testdir_main("ctl_server", tcase);
}
