/* supervise SECONDS PROGRAM ARGUMENT...: runs one program in a sandbox and leaves nothing of it running.

   It adopts every orphan below it (a "subreaper"), so that a process which makes itself a daemon is still found. When
   the program has ended, when SECONDS (0: unlimited) have passed, or on SIGTERM, every descendant is killed; only then
   does it end, with the program's exit code, or 128 and the signal's number.

   It first waits for one byte on standard input unless that is a terminal: the caller sends it when it listens. */

#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_PROCESSES = 65536 };

static int pids[MAX_PROCESSES], parents[MAX_PROCESSES], is_ours[MAX_PROCESSES], n_processes;

static void list_processes(void) {
    DIR *folder = opendir("/proc");
    struct dirent *entry;
    n_processes = 0;
    while (folder && (entry = readdir(folder)) && n_processes < MAX_PROCESSES) {
        char path[300], line[512], *after;
        FILE *file;
        if (!isdigit((unsigned char)entry->d_name[0])) continue;
        snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
        if (!(file = fopen(path, "r"))) continue;
        /* The name in brackets may hold anything, brackets too: what counts comes after the last one. */
        if (fgets(line, sizeof line, file) && (after = strrchr(line, ')')) &&
            sscanf(after + 1, " %*c %d", &parents[n_processes]) == 1)
            pids[n_processes++] = atoi(entry->d_name);
        fclose(file);
    }
    if (folder) closedir(folder);
}

static int signal_descendants(int number) {
    int me = getpid(), grown = 1, n_found = 0;
    list_processes();
    memset(is_ours, 0, sizeof is_ours);
    while (grown) {
        grown = 0;
        for (int i = 0; i < n_processes; i++) {
            int ours = parents[i] == me;
            for (int j = 0; !is_ours[i] && !ours && j < n_processes; j++) ours = is_ours[j] && pids[j] == parents[i];
            if (ours && !is_ours[i]) is_ours[i] = grown = 1;
        }
    }
    for (int i = 0; i < n_processes; i++)
        if (is_ours[i]) n_found += kill(pids[i], number) == 0;
    return n_found;
}

/* Stopped first, so that none can start another between being listed and being killed. */
static void end_descendants(void) {
    struct timespec pause = {0, 2000000};
    for (;;) {
        int found = signal_descendants(SIGSTOP);
        found += signal_descendants(SIGKILL);
        while (waitpid(-1, NULL, WNOHANG) > 0) {}
        if (waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD && !found) return;
        nanosleep(&pause, NULL);
    }
}

int main(int count, char **arguments) {
    sigset_t awaited, before;
    struct timespec now, left;
    char go;
    int status = 0, code = 137;
    if (count < 3) return 125;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (!isatty(0) && read(0, &go, 1) != 1) return 125;
    sigemptyset(&awaited);
    sigaddset(&awaited, SIGCHLD);
    sigaddset(&awaited, SIGTERM);
    sigaddset(&awaited, SIGHUP);
    sigprocmask(SIG_BLOCK, &awaited, &before);
    signal(SIGINT, SIG_IGN); /* a terminal's interrupt is for the program alone */
    signal(SIGQUIT, SIG_IGN);
    double seconds = atof(arguments[1]);
    clock_gettime(CLOCK_MONOTONIC, &now);
    double deadline = now.tv_sec + now.tv_nsec / 1e9 + seconds;
    int child = fork();
    if (child == 0) {
        sigprocmask(SIG_SETMASK, &before, NULL);
        signal(SIGINT, SIG_DFL);
        signal(SIGQUIT, SIG_DFL);
        if (!isatty(0)) dup2(1, 2); /* one pipe keeps the order in which both were written */
        execvp(arguments[2], arguments + 2);
        fprintf(stderr, "%s: %s\n", arguments[2], strerror(errno));
        _exit(errno == ENOENT ? 127 : 126);
    }
    if (child < 0) {
        fprintf(stdout, "cannot start a process: %s\n", strerror(errno));
        return 126;
    }
    for (;;) {
        int pid, got = SIGCHLD;
        while ((pid = waitpid(-1, &status, WNOHANG)) > 0 && pid != child) {}
        if (pid == child) {
            code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
            break;
        }
        clock_gettime(CLOCK_MONOTONIC, &now);
        double wait = seconds > 0 ? deadline - (now.tv_sec + now.tv_nsec / 1e9) : 3600;
        if (wait <= 0) break;
        left.tv_sec = (time_t)wait;
        left.tv_nsec = (long)((wait - (double)left.tv_sec) * 1e9);
        got = sigtimedwait(&awaited, NULL, &left);
        if (got == SIGTERM || got == SIGHUP) break;
    }
    end_descendants();
    return code;
}
