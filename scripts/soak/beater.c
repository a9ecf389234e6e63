/* A command for the soak: it beats, crashes or hangs as it is told, and writes down when.
 *
 *   beater OUT beat MAX_GAP_MS      beats of all kinds, at random, at most so far apart
 *   beater OUT replace COUNT        replaces its file so often, as fast as it can, then beats
 *   beater OUT crash ONE_IN         exits 1 at once; one in ONE_IN runs hangs instead (0: none)
 *   beater OUT storm COUNT          on SIGUSR2 so many writes and chmods in turn, then beats
 *
 * SIGUSR1: hang, now. SIGUSR2 to `beat`: half a second of silence, then on.
 * OUT gets a line for each start, end of the replacing, hang and SIGTERM: the pid, and in nanoseconds
 * of CLOCK_MONOTONIC when it was, and the times just before and after the last beat. OUT.runs gets a
 * byte for each start of `crash`.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int out;
static volatile sig_atomic_t hang, told;
static const char *file;
static char fresh[4096];
static long long before, after;

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void note(const char *what)
{
    char line[128];
    int length = snprintf(line, sizeof line, "%s %d %lld %lld %lld\n", what, (int)getpid(), now(),
                          before, after);
    if (write(out, line, length) != length)
        _exit(99);
}

static void on_signal(int number)
{
    if (number == SIGTERM) {
        note("term");
        _exit(0);
    }
    if (number == SIGUSR1)
        hang = 1;
    else
        told = 1;
}

static void pass(long long ns)
{
    long long end = now() + ns;
    struct timespec until = {end / 1000000000LL, end % 1000000000LL};
    while (!hang && !told && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        ;
}

static void put(const char *path, int flags)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0644);
    if (fd >= 0) {
        if (write(fd, "x", 1) != 1)
            _exit(98);
        close(fd);
    }
}

static void replace(void)
{
    put(fresh, O_TRUNC);
    rename(fresh, file);
}

static void beat(int kind)
{
    long long begun = now();
    switch (kind) {
    case 0: put(file, O_TRUNC); break;
    case 1: put(file, 0); break;
    case 2: replace(); break;
    case 3: unlink(file); put(file, O_EXCL); break;
    default: if (utimensat(AT_FDCWD, file, NULL, 0)) put(file, 0); break;
    }
    /* Of a beat that is cut short nobody saw anything. */
    before = begun;
    after = now();
}

static void storm(long count)
{
    int fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    for (long i = 0; i < count; i++)
        if (write(fd, "x", 1) != 1 || fchmod(fd, i % 2 ? 0644 : 0640))
            _exit(97);
    close(fd);
}

int main(int argc, char **argv)
{
    if (argc < 4 || !(file = getenv("HEARTBEAT_FILE"))) {
        if (argc < 4 || strcmp(argv[2], "crash"))
            return 2;
        file = "/dev/null";
    }
    const char *mode = argv[2];
    long number = atol(argv[3]), gap = strcmp(mode, "beat") ? 200 : number;
    snprintf(fresh, sizeof fresh, "%s.new", file);
    out = open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    srandom(now() ^ getpid());
    if (!strcmp(mode, "crash")) {
        char runs[4096];
        snprintf(runs, sizeof runs, "%s.runs", argv[1]);
        put(runs, O_APPEND);
        if (!number || random() % number)
            return 1;
        hang = 1;
        before = after = now();
    } else {
        note("start");
        beat(0);
        if (!strcmp(mode, "replace")) {
            for (long i = 0; i < number; i++)
                beat(2);
            note("done");
        }
    }
    while (!hang) {
        pass(random() % (gap * 1000000LL + 1));
        if (told && !strcmp(mode, "storm"))
            storm(number);
        else if (told) {
            told = 0;
            pass(500000000LL);
        }
        told = 0;
        if (!hang)
            beat(random() % 5);
    }
    note("hang");
    for (;;)
        pause();
}
