/* SPDX-License-Identifier: MIT */
/*
 * Records workloads and replays their power losses: doc/HACKING.md and README.md beside this tell how.
 *
 *     test_crash [--states N] [--seed S] [--jobs J] [--mode NAME]
 *     test_crash --replay S:STATE                    one state of such a run again
 *     test_crash --case FILE [--states N] [--replay 0:STATE]
 *     test_crash --cases FOLDER                      all FOLDER/ *.case
 *     test_crash --recording FILE:STATE              a state of a log that a failure has left behind
 *
 * A failing state is shrunk (fewer changes lost or torn), printed, and left as crash-N.case (its workload) and crash-N.log (its
 * log, for where the order of threads matters). The exit status is 0 when all states are good.
 */
#include "judge.h"
#include "life.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STATES_DEFAULT 10000u
#define STATES_PER_WORKLOAD 125u
#define STATES_PER_CASE 300u
#define STATE_LIMIT_S 60
#define JOBS_MAX 16u
#define SHOWN_CHANGES 40u

/* One state, to be built again from its log. */
struct state {
	uint64_t number; /* in the whole run */
	uint32_t at; /* the power goes before this entry */
	enum fate_style style;
	uint64_t random;
	bool looks_before, cuts_recovery;
};

/* What a worker does now, and what it has found. */
struct slot {
	struct workload workload;
	struct state state;
	bool is_recording;
	bool has_failed;
	char failure[1000];
	_Atomic uint64_t nr_states;
	_Atomic uint64_t nr_changes; /* pending ones, over all states */
};

struct run {
	uint64_t seed;
	uint64_t nr_states;
	unsigned int nr_jobs;
	enum crash_mode mode; /* NR_CRASH_MODES: all of them, in turns */
	const struct workload *workload; /* a case's; NULL: made up */
	uint64_t only; /* this state alone; UINT64_MAX: all */
	char base[128]; /* folder of all files */

	/* Shared with the workers. */
	_Atomic uint64_t *next_workload;
	_Atomic bool *is_over;
	struct slot *slots;
	struct log *logs[JOBS_MAX];
};

static void *shared(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		exit(EXIT_FAILURE);
	return memory;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static void remove_tree(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

static void clear_log(struct log *log)
{
	madvise(log, sizeof(*log) + LOG_DATA_MAX, MADV_REMOVE);
	log->nr = 0;
	log->used = 0;
}

/* --- which states --- */

/* Entries after which a power loss is of interest. */
struct spots {
	uint32_t *list;
	uint32_t nr;
};

enum { SPOTS_ANSWERS, SPOTS_RACES, SPOTS_SYNCS, NR_SPOTS };

static bool is_answer(const struct log_entry *entry)
{
	return entry->kind == LOG_SHOWN || entry->kind == LOG_SYNCED || entry->kind == LOG_LABEL ||
	       entry->kind == LOG_FROZEN || entry->kind == LOG_SNAPSHOT;
}

static void find_spots(const struct log *log, struct spots ret_spots[NR_SPOTS])
{
	struct history history;
	int image = -1;

	history_begin(&history, log);
	for (int i = 0; i < NR_SPOTS; i++)
		ret_spots[i] = (struct spots){ .list = calloc(log->nr + 1, sizeof(uint32_t)) };
	for (uint32_t i = 0; i < log->nr; i++) {
		const struct log_entry *entry = &log->entries[i];
		disk_advance(history.disk, i + 1);
		if (entry->kind == LOG_BASE_FILE && strcmp(entry->text, "image") == 0)
			image = entry->file;
		bool is_image = (entry->kind == LOG_WRITE || entry->kind == LOG_ZERO) && entry->file == image;
		if (is_answer(entry))
			ret_spots[SPOTS_ANSWERS].list[ret_spots[SPOTS_ANSWERS].nr++] = i + 1;
		/* The image changes while something of the metadata is on its way. */
		if (is_image && disk_has_pending_metadata(history.disk))
			ret_spots[SPOTS_RACES].list[ret_spots[SPOTS_RACES].nr++] = i + 1;
		if (entry->kind == LOG_SYNC_BEGIN || entry->kind == LOG_SYNC_END)
			ret_spots[SPOTS_SYNCS].list[ret_spots[SPOTS_SYNCS].nr++] = i + (entry->kind == LOG_SYNC_BEGIN);
	}
	history_end(&history);
}

static struct state choose_state(const struct run *run, const struct workload *workload, const struct log *log,
	const struct spots *spots, uint64_t number, uint64_t index, uint64_t nr)
{
	static const enum fate_style styles[] = { FATES_ALL_LOST, FATES_ALL_KEPT, FATES_BY_FILE, FATES_BY_FILE,
		FATES_IMAGE_KEPT, FATES_IMAGE_KEPT, FATES_IMAGE_KEPT, FATES_IMAGE_LOST, FATES_SUBSET, FATES_SUBSET,
		FATES_SUBSET, FATES_TORN, FATES_TORN };
	uint64_t random = run->seed * UINT64_C(1000003) + workload->seed * 8191 + index;
	struct state state = { .number = number };

	crash_random(&random);
	uint64_t which = crash_below(&random, NR_SPOTS + 1);
	uint64_t step = (uint64_t)log->nr * index / nr + crash_below(&random, log->nr / nr + 1);
	state.at = (uint32_t)(step < log->nr ? step : log->nr);
	if (which < NR_SPOTS && spots[which].nr > 0)
		state.at = spots[which].list[crash_below(&random, spots[which].nr)];
	/* Not before the disk is as it was given. */
	uint32_t first = 1;
	while (first < log->nr && log->entries[first].kind == LOG_BASE_FILE)
		first++;
	for (uint32_t at = state.at < first ? first : state.at;; at++) {
		state.at = at; /* nor in the middle of a restart */
		if (at == log->nr || log->entries[at].kind != LOG_BASE_FILE)
			break;
	}
	state.style = styles[crash_below(&random, sizeof(styles) / sizeof(styles[0]))];
	state.looks_before = crash_below(&random, 4) == 0;
	state.cuts_recovery = crash_below(&random, 8) == 0;
	state.random = crash_random(&random);
	return state;
}

static int compare_states(const void *a, const void *b)
{
	const struct state *x = a, *y = b;
	return (x->at > y->at) - (x->at < y->at);
}

/* --- one state --- */

static bool try_state(const struct run *run, const struct scene *scene, const struct state *state, enum crash_mode mode,
	const struct history *history, const struct fates *fates, char *ret_failure, size_t size)
{
	struct check check = { .scene = scene,
		.mode = mode,
		.looks_before = state->looks_before,
		.cuts_recovery = state->cuts_recovery,
		.random = state->random };
	bool good = check_state(&check, history, fates);
	if (!good)
		snprintf(ret_failure, size, "%s", check.failure);
	return good;
}

static void choose_fates(const struct state *state, const struct history *history, struct fates *ret_fates)
{
	uint64_t random = state->random;
	fates_choose(history->disk, state->style, &random, ret_fates);
}

/* --- the worker --- */

static bool run_states(struct run *run, struct slot *slot, const struct scene *scene, const struct log *log,
	struct state *states, uint64_t nr)
{
	struct history history;
	bool good = true;

	qsort(states, nr, sizeof(*states), compare_states);
	history_begin(&history, log);
	for (uint64_t i = 0; i < nr && good && !atomic_load(run->is_over); i++) {
		struct fates fates;
		slot->state = states[i];
		history_advance(&history, states[i].at);
		choose_fates(&states[i], &history, &fates);
		alarm(STATE_LIMIT_S);
		good = try_state(run, scene, &states[i], slot->workload.mode, &history, &fates, slot->failure,
			sizeof(slot->failure));
		alarm(0);
		atomic_fetch_add(&slot->nr_changes, fates.nr);
		atomic_fetch_add(&slot->nr_states, 1);
		fates_clear(&fates);
	}
	history_end(&history);
	return good;
}

/* Records the workload and looks at the first nr of its `per` states, numbered from first on. */
static bool run_workload(struct run *run, struct slot *slot, struct log *log, const struct scene *scene, uint64_t first,
	uint64_t nr, uint64_t per)
{
	struct spots spots[NR_SPOTS];

	clear_log(log);
	slot->is_recording = true;
	slot->state = (struct state){ .number = first };
	if (!life_record(&slot->workload, scene, log, slot->failure, sizeof(slot->failure)))
		return false;
	slot->is_recording = false;
	find_spots(log, spots);
	struct state *states = calloc(nr, sizeof(*states));
	uint64_t nr_chosen = 0;
	for (uint64_t i = 0; i < nr; i++)
		if (run->only == UINT64_MAX || run->only == first + i)
			states[nr_chosen++] = choose_state(run, &slot->workload, log, spots, first + i, i, per);
	bool good = run_states(run, slot, scene, log, states, nr_chosen);
	for (int i = 0; i < NR_SPOTS; i++)
		free(spots[i].list);
	free(states);
	return good;
}

static enum crash_mode mode_of(const struct run *run, uint64_t workload)
{
	return run->mode < NR_CRASH_MODES ? run->mode : (enum crash_mode)(workload % NR_CRASH_MODES);
}

static _Noreturn void work(struct run *run, unsigned int job)
{
	struct slot *slot = &run->slots[job];
	char base[160];
	struct scene scene;
	uint64_t per = run->workload ? run->nr_states : STATES_PER_WORKLOAD;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* A state needs the same few megabytes as the one before it. */
	mallopt(M_MMAP_THRESHOLD, 1 << 26);
	mallopt(M_TRIM_THRESHOLD, 1 << 28);
	snprintf(base, sizeof(base), "%s/%u", run->base, job);
	scene_make(&scene, base);
	for (;;) {
		uint64_t w = atomic_fetch_add(run->next_workload, 1);
		if (run->only != UINT64_MAX)
			w += run->only / per;
		uint64_t first = w * per;
		if (first >= run->nr_states || atomic_load(run->is_over) ||
			(run->only != UINT64_MAX && run->only / per != w))
			_exit(EXIT_SUCCESS);
		uint64_t nr = run->nr_states - first < per ? run->nr_states - first : per;
		if (run->workload)
			slot->workload = *run->workload;
		else
			workload_make(run->seed * 1000 + w, mode_of(run, w), &slot->workload);
		if (!run_workload(run, slot, run->logs[job], &scene, first, nr, per)) {
			slot->has_failed = true;
			atomic_store(run->is_over, true);
			_exit(EXIT_FAILURE);
		}
	}
}

/* --- a state that failed --- */

/* In a child: the state may end it. */
static bool fails(const struct run *run, const struct state *state, const struct slot *slot,
	const struct history *history, const struct fates *fates, char *ret_failure, size_t size)
{
	char *text = shared(size);
	int status = 0;

	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		struct scene scene;
		char base[160];
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		snprintf(base, sizeof(base), "%s/shrink", run->base);
		remove_tree(base);
		scene_make(&scene, base);
		setenv("ERAIMGFS_RUN_DIR", scene.run, 1);
		alarm(STATE_LIMIT_S);
		bool good = try_state(run, &scene, state, slot->workload.mode, history, fates, text, size);
		_exit(good ? EXIT_SUCCESS : EXIT_FAILURE);
	}
	waitpid(pid, &status, 0);
	bool failed = !(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS);
	if (failed && text[0] == '\0')
		snprintf(text, size, "O1: the process ended with status %#x", status);
	if (failed)
		snprintf(ret_failure, size, "%s", text);
	munmap(text, size);
	return failed;
}

/* Takes the change, if the state fails with it as well. */
static bool accept(const struct run *run, const struct state *state, const struct slot *slot,
	const struct history *history, struct fates *fates, struct fates *tried, char *ret_failure, size_t size)
{
	fates_settle(history->disk, tried);
	bool taken = fails(run, state, slot, history, tried, ret_failure, size);
	if (taken) {
		fates_clear(fates);
		*fates = *tried;
	} else {
		fates_clear(tried);
	}
	return taken;
}

/* Keeps as much as it can: [from, to) of the list at a time. */
static void shrink(const struct run *run, struct state *state, const struct slot *slot, const struct history *history,
	struct fates *fates, char *ret_failure, size_t size)
{
	struct state simpler = *state;
	simpler.cuts_recovery = simpler.looks_before = false;
	if (fails(run, &simpler, slot, history, fates, ret_failure, size))
		*state = simpler;
	for (unsigned int len = fates->nr; len > 0; len /= 2)
		for (unsigned int from = 0; from < fates->nr; from += len) {
			struct fates tried;
			bool changes = false;
			fates_copy(fates, &tried);
			for (unsigned int i = from; i < from + len && i < fates->nr; i++) {
				changes |= tried.list[i].fate != FATE_KEPT;
				tried.list[i].fate = FATE_KEPT;
			}
			if (changes)
				accept(run, state, slot, history, fates, &tried, ret_failure, size);
			else
				fates_clear(&tried);
		}
}

static void print_fates(const struct log *log, const struct fates *fates)
{
	static const char *const names[] = { "kept", "lost", "torn at 512", "torn at 4096", "only grown" };
	unsigned int nr = 0;
	for (unsigned int i = 0; i < fates->nr; i++)
		nr += fates->list[i].fate != FATE_KEPT;
	printf("  of %u pending changes %u are not there as they were made:\n", fates->nr, nr);
	nr = 0;
	for (unsigned int i = 0; i < fates->nr; i++) {
		char text[200];
		if (fates->list[i].fate == FATE_KEPT)
			continue;
		if (nr++ == SHOWN_CHANGES) {
			printf("    ...\n");
			break;
		}
		log_describe(log, fates->list[i].index, text, sizeof(text));
		printf("    %s: %s\n", names[fates->list[i].fate], text);
	}
}

static void leave_files(const struct run *run, const struct slot *slot, const struct log *log)
{
	char name[64];
	snprintf(name, sizeof(name), "crash-%llu.case", (unsigned long long)slot->state.number);
	FILE *file = fopen(name, "w");
	if (file) {
		fprintf(file, "# %.200s\n", slot->failure);
		workload_write(&slot->workload, file);
		fclose(file);
		printf("  its workload is in %s: test_crash --case %s\n", name, name);
	}
	snprintf(name, sizeof(name), "crash-%llu.log", (unsigned long long)slot->state.number);
	if (log_save(log, name))
		printf("  its log is in %s: test_crash --recording %s:%u:%d:%llu:%d%d\n", name, name, slot->state.at,
			(int)slot->state.style, (unsigned long long)slot->state.random, slot->state.looks_before,
			slot->state.cuts_recovery);
	if (!run->workload)
		printf("  again, where threads keep their order: test_crash --replay %llu:%llu\n",
			(unsigned long long)run->seed, (unsigned long long)slot->state.number);
}

static void print_history(const struct log *log, uint32_t at)
{
	uint32_t first = at > 12 ? at - 12 : 0;
	printf("  the history ends with\n");
	for (uint32_t i = first; i < at; i++) {
		char text[200];
		log_describe(log, i, text, sizeof(text));
		printf("    %s\n", text);
	}
}

static void report(const struct run *run, struct slot *slot, const struct log *log, bool leaves)
{
	struct history history;
	struct fates fates;
	struct state state = slot->state;

	printf("FAILED: state %llu of seed %llu: %s\n", (unsigned long long)state.number, (unsigned long long)run->seed,
		slot->failure[0] != '\0' ? slot->failure : "the process ended");
	if (slot->is_recording) {
		printf("  while its workload was recorded\n");
		print_history(log, log->nr);
	} else {
		history_begin(&history, log);
		history_advance(&history, state.at);
		choose_fates(&state, &history, &fates);
		char text[sizeof(slot->failure)];
		if (fails(run, &state, slot, &history, &fates, text, sizeof(text))) {
			shrink(run, &state, slot, &history, &fates, text, sizeof(text));
			printf("  shrunk: %s\n", text);
		} else {
			printf("  a second try of the same state was good\n");
		}
		print_history(log, state.at);
		print_fates(log, &fates);
		fates_clear(&fates);
		history_end(&history);
	}
	if (leaves)
		leave_files(run, slot, log);
	fflush(stdout);
}

/* --- a run --- */

static bool run_all(struct run *run)
{
	bool good = true;
	pid_t pids[JOBS_MAX];
	uint64_t nr_states = 0, nr_changes = 0;
	struct timespec begun, ended;

	clock_gettime(CLOCK_MONOTONIC, &begun);
	run->next_workload = shared(sizeof(*run->next_workload));
	run->is_over = shared(sizeof(*run->is_over));
	run->slots = shared(run->nr_jobs * sizeof(*run->slots));
	for (unsigned int job = 0; job < run->nr_jobs; job++) {
		run->logs[job] = log_new();
		fflush(NULL);
		pids[job] = fork();
		if (pids[job] == 0)
			work(run, job);
	}
	int first = -1;
	for (unsigned int job = 0; job < run->nr_jobs; job++) {
		int status;
		waitpid(pids[job], &status, 0);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
			continue;
		atomic_store(run->is_over, true);
		if (!run->slots[job].has_failed)
			snprintf(run->slots[job].failure, sizeof(run->slots[job].failure),
				"O1: the process ended with status %#x", status);
		/* The smaller number, where both have failed: it is the better one to go on with. */
		if (first < 0 || run->slots[job].state.number < run->slots[first].state.number)
			first = (int)job;
		good = false;
	}
	if (first >= 0)
		report(run, &run->slots[first], run->logs[first], true);
	for (unsigned int job = 0; job < run->nr_jobs; job++) {
		nr_states += atomic_load(&run->slots[job].nr_states);
		nr_changes += atomic_load(&run->slots[job].nr_changes);
		log_free(run->logs[job]);
	}
	clock_gettime(CLOCK_MONOTONIC, &ended);
	printf("%s: %llu states, seed %llu, mode %s, %llu pending changes on average, %lld s\n",
		good ? "good" : "FAILED", (unsigned long long)nr_states, (unsigned long long)run->seed,
		run->mode < NR_CRASH_MODES ? mode_name(run->mode) : "all",
		(unsigned long long)(nr_states ? nr_changes / nr_states : 0), (long long)(ended.tv_sec - begun.tv_sec));
	fflush(stdout);
	munmap((void *)run->next_workload, sizeof(*run->next_workload));
	munmap((void *)run->is_over, sizeof(*run->is_over));
	munmap(run->slots, run->nr_jobs * sizeof(*run->slots));
	if (good && nr_states == 0) {
		printf("no state was looked at\n");
		return false;
	}
	return good;
}

static bool run_case(struct run run, const char *path, uint64_t nr_states)
{
	static struct workload workload;
	char base[200];
	if (!workload_read(path, &workload))
		return false;
	run.workload = &workload;
	run.seed = workload.seed;
	run.mode = workload.mode;
	run.nr_states = nr_states ? nr_states : workload.nr_states ? workload.nr_states : STATES_PER_CASE;
	run.nr_jobs = 1;
	printf("%s: ", path);
	snprintf(base, sizeof(base), "%s/0", run.base);
	remove_tree(base);
	bool good = run_all(&run);
	remove_tree(base);
	return good;
}

static bool run_cases(struct run run, const char *folder, uint64_t nr_states)
{
	bool good = true;
	unsigned int nr = 0;
	DIR *dir = opendir(folder);
	if (!dir) {
		perror(folder);
		return false;
	}
	for (const struct dirent *entry; (entry = readdir(dir));) {
		char path[600];
		size_t len = strlen(entry->d_name);
		if (len < 5 || strcmp(entry->d_name + len - 5, ".case") != 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		good &= run_case(run, path, nr_states);
		nr++;
	}
	closedir(dir);
	printf("%u cases\n", nr);
	return good;
}

/* FILE:AT:STYLE:RANDOM:FLAGS, as leave_files() prints it. */
static bool run_recording(struct run *run, char *text)
{
	struct slot *slot = calloc(1, sizeof(*slot));
	unsigned int style = 0;
	char before = '0', cuts = '0';
	unsigned long long random = 0;
	char *rest = strchr(text, ':');
	if (rest)
		*rest++ = '\0';
	if (!rest || sscanf(rest, "%u:%u:%llu:%c%c", &slot->state.at, &style, &random, &before, &cuts) != 5 ||
		style >= NR_FATE_STYLES) {
		fprintf(stderr, "--recording FILE:AT:STYLE:RANDOM:FLAGS\n");
		return false;
	}
	struct log *log = log_load(text);
	if (!log || slot->state.at > log->nr) {
		fprintf(stderr, "%s: is no log of this program's\n", text);
		return false;
	}
	slot->state.style = (enum fate_style)style;
	slot->state.random = random;
	slot->state.looks_before = before == '1';
	slot->state.cuts_recovery = cuts == '1';
	slot->workload.mode = mode_of(run, 0);
	struct history history;
	struct fates fates;
	history_begin(&history, log);
	history_advance(&history, slot->state.at);
	choose_fates(&slot->state, &history, &fates);
	bool failed = fails(run, &slot->state, slot, &history, &fates, slot->failure, sizeof(slot->failure));
	fates_clear(&fates);
	history_end(&history);
	if (failed)
		report(run, slot, log, false);
	printf("%s\n", failed ? "FAILED" : "good");
	log_free(log);
	free(slot);
	return !failed;
}

static void usage(void)
{
	fprintf(stderr, "test_crash [--states N] [--seed S] [--jobs J] [--mode NAME] [--replay SEED:STATE]\n"
			"           [--case FILE | --cases FOLDER | --recording FILE:AT:STYLE:RANDOM:FLAGS]\n");
	exit(EXIT_FAILURE);
}

static void take_mode(struct run *run, const char *name)
{
	for (unsigned int mode = 0; mode < NR_CRASH_MODES; mode++)
		if (strcmp(mode_name((enum crash_mode)mode), name) == 0) {
			run->mode = (enum crash_mode)mode;
			return;
		}
	usage();
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "states", 1, NULL, 'n' }, { "seed", 1, NULL, 's' },
		{ "jobs", 1, NULL, 'j' }, { "mode", 1, NULL, 'm' }, { "replay", 1, NULL, 'r' },
		{ "case", 1, NULL, 'c' }, { "cases", 1, NULL, 'C' }, { "recording", 1, NULL, 'R' }, { 0 } };
	struct run run = { .seed = (uint64_t)time(NULL), .nr_jobs = 2, .mode = NR_CRASH_MODES, .only = UINT64_MAX };
	char *single = NULL, *folder = NULL, *recording = NULL;
	unsigned long long seed, state;
	uint64_t nr_states = 0;

	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		switch (c) {
		case 'n':
			nr_states = strtoull(optarg, NULL, 10);
			break;
		case 's':
			run.seed = strtoull(optarg, NULL, 10);
			break;
		case 'j':
			run.nr_jobs = (unsigned int)strtoul(optarg, NULL, 10);
			break;
		case 'm':
			take_mode(&run, optarg);
			break;
		case 'r':
			if (sscanf(optarg, "%llu:%llu", &seed, &state) != 2)
				usage();
			run.seed = seed;
			run.only = state;
			break;
		case 'c':
			single = optarg;
			break;
		case 'C':
			folder = optarg;
			break;
		case 'R':
			recording = optarg;
			break;
		default:
			usage();
		}
	}
	if (optind != argc || run.nr_jobs == 0 || run.nr_jobs > JOBS_MAX)
		usage();
	const char *tmp = getenv("TMPDIR");
	snprintf(run.base, sizeof(run.base), "%.100s/era-crash-XXXXXX",
		access("/dev/shm", W_OK) == 0 ? "/dev/shm"
		: tmp                         ? tmp
					      : "/tmp");
	if (!mkdtemp(run.base)) {
		perror(run.base);
		return EXIT_FAILURE;
	}
	bool good;
	run.nr_states = nr_states ? nr_states : STATES_DEFAULT;
	if (run.only != UINT64_MAX) {
		run.nr_jobs = 1;
		run.nr_states = run.only + STATES_PER_WORKLOAD; /* all that it could be one of */
	}
	if (recording)
		good = run_recording(&run, recording);
	else if (single)
		good = run_case(run, single, nr_states);
	else if (folder)
		good = run_cases(run, folder, nr_states);
	else
		good = run_all(&run);
	remove_tree(run.base);
	return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
