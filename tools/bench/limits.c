// limits.c - physical limits of one machine, for rooflines.
//
// Measures, with 1..N threads:
//   * sustained DRAM / cache read bandwidth for several buffer sizes,
//   * peak f32 FMA rate (AVX-512 or AVX2),
//   * peak bf16 dot rate (vdpbf16ps), if the CPU has AVX512_BF16,
//   * peak int8 dot rate (vpdpbusd), if the CPU has AVX512_VNNI,
// and prints JSON.
//
// Build:  make            (cc -O3 -march=native -pthread limits.c -o limits)
// Run:    ./limits [max_threads] [all|read|compute|line]
//
// 'line' takes a few seconds and prints one line for run_all.py: the read bandwidth
// at this moment (best of both access patterns, huge pages, median of 5). On a shared
// host it moves a lot, so measure it between the runs that it is to explain.
#define _GNU_SOURCE
#include <immintrin.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

typedef struct {
    int kind, id, seq;
    const uint8_t *buf;
    size_t bytes;      // this thread's share
    double seconds;    // out: time spent
    double work;       // out: bytes or operations
    long reps;
    pthread_barrier_t *bar;
    volatile float sink;
} job;

enum { K_READ, K_F32, K_BF16, K_VNNI, K_I16 };

#ifdef __AVX512F__
#define LANES 16
typedef __m512 vf;
static inline vf fma1(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf set1(float x) { return _mm512_set1_ps(x); }
static inline float hsum(vf a) { return _mm512_reduce_add_ps(a); }
#else
#define LANES 8
typedef __m256 vf;
static inline vf fma1(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf set1(float x) { return _mm256_set1_ps(x); }
static inline float hsum(vf a) {
    float t[8]; _mm256_storeu_ps(t, a);
    float s = 0; for (int i = 0; i < 8; i++) s += t[i];
    return s;
}
#endif

// Sum 64-bit lanes of the share: four streams, one touch of every cache line.
static uint64_t read_pass(const uint8_t *p, size_t bytes) {
#ifdef __AVX512F__
    __m512i a0 = _mm512_setzero_si512(), a1 = a0, a2 = a0, a3 = a0;
    size_t q = (bytes / 4) & ~(size_t)255;
    const uint8_t *p0 = p, *p1 = p + q, *p2 = p + 2 * q, *p3 = p + 3 * q;
    for (size_t i = 0; i < q; i += 128) {
        _mm_prefetch((const char *)p0 + i + 1024, _MM_HINT_T0);
        _mm_prefetch((const char *)p1 + i + 1024, _MM_HINT_T0);
        _mm_prefetch((const char *)p2 + i + 1024, _MM_HINT_T0);
        _mm_prefetch((const char *)p3 + i + 1024, _MM_HINT_T0);
        _mm_prefetch((const char *)p0 + i + 1088, _MM_HINT_T0);
        _mm_prefetch((const char *)p1 + i + 1088, _MM_HINT_T0);
        _mm_prefetch((const char *)p2 + i + 1088, _MM_HINT_T0);
        _mm_prefetch((const char *)p3 + i + 1088, _MM_HINT_T0);
        a0 = _mm512_add_epi64(a0, _mm512_load_si512(p0 + i));
        a1 = _mm512_add_epi64(a1, _mm512_load_si512(p1 + i));
        a2 = _mm512_add_epi64(a2, _mm512_load_si512(p2 + i));
        a3 = _mm512_add_epi64(a3, _mm512_load_si512(p3 + i));
        a0 = _mm512_add_epi64(a0, _mm512_load_si512(p0 + i + 64));
        a1 = _mm512_add_epi64(a1, _mm512_load_si512(p1 + i + 64));
        a2 = _mm512_add_epi64(a2, _mm512_load_si512(p2 + i + 64));
        a3 = _mm512_add_epi64(a3, _mm512_load_si512(p3 + i + 64));
    }
    a0 = _mm512_add_epi64(_mm512_add_epi64(a0, a1), _mm512_add_epi64(a2, a3));
    return (uint64_t)_mm512_reduce_add_epi64(a0);
#else
    __m256i a0 = _mm256_setzero_si256(), a1 = a0;
    for (size_t i = 0; i + 64 <= bytes; i += 64) {
        a0 = _mm256_add_epi64(a0, _mm256_load_si256((const __m256i *)(p + i)));
        a1 = _mm256_add_epi64(a1, _mm256_load_si256((const __m256i *)(p + i + 32)));
    }
    uint64_t t[4]; _mm256_storeu_si256((__m256i *)t, _mm256_add_epi64(a0, a1));
    return t[0] + t[1] + t[2] + t[3];
#endif
}

// The plain sequential variant: one stream, hardware prefetch only.
static uint64_t read_seq(const uint8_t *p, size_t bytes) {
#ifdef __AVX512F__
    __m512i a0 = _mm512_setzero_si512(), a1 = a0, a2 = a0, a3 = a0;
    for (size_t i = 0; i + 256 <= bytes; i += 256) {
        a0 = _mm512_add_epi64(a0, _mm512_load_si512(p + i));
        a1 = _mm512_add_epi64(a1, _mm512_load_si512(p + i + 64));
        a2 = _mm512_add_epi64(a2, _mm512_load_si512(p + i + 128));
        a3 = _mm512_add_epi64(a3, _mm512_load_si512(p + i + 192));
    }
    a0 = _mm512_add_epi64(_mm512_add_epi64(a0, a1), _mm512_add_epi64(a2, a3));
    return (uint64_t)_mm512_reduce_add_epi64(a0);
#else
    return read_pass(p, bytes);
#endif
}

// Twelve named accumulators: enough independent chains to hide the latency, and
// (unlike an array) certain to stay in registers.
#define EACH(OP) OP(0) OP(1) OP(2) OP(3) OP(4) OP(5) OP(6) OP(7) OP(8) OP(9) OP(10) OP(11)
#define NACC 12
#define KEEP(i) __asm__ volatile("" : "+v"(c##i));

static void compute(job *j) {
    if (j->kind == K_F32) {
#define DECL(i) vf c##i = set1((float)i);
#define STEP(i) c##i = fma1(a, b, c##i);
#define SUM(i) s += hsum(c##i);
        vf a = set1(1.001f), b = set1(1e-4f);
        __asm__ volatile("" : "+v"(a), "+v"(b));
        EACH(DECL)
        for (long r = 0; r < j->reps; r++) { EACH(STEP) EACH(KEEP) }
        float s = 0;
        EACH(SUM)
        j->sink = s;
        j->work = (double)j->reps * NACC * LANES * 2.0;
#undef STEP
    }
#ifdef __AVX512BF16__
    if (j->kind == K_BF16) {
#define STEP(i) c##i = _mm512_dpbf16_ps(c##i, a, b);
        __m512bh a = (__m512bh)_mm512_set1_epi16(0x3f80), b = (__m512bh)_mm512_set1_epi16(0x3800);
        EACH(DECL)
        for (long r = 0; r < j->reps; r++) { EACH(STEP) EACH(KEEP) }
        float s = 0;
        EACH(SUM)
        j->sink = s;
        j->work = (double)j->reps * NACC * 32 * 2.0;
#undef STEP
    }
#endif
#undef DECL
#undef SUM
#ifdef __AVX512VNNI__
#define DECL(i) __m512i c##i = _mm512_set1_epi32(i);
#define SUM(i) s += _mm512_reduce_add_epi32(c##i);
    if (j->kind == K_VNNI) {
#define STEP(i) c##i = _mm512_dpbusd_epi32(c##i, a, b);
        __m512i a = _mm512_set1_epi8(1), b = _mm512_set1_epi8(3);
        EACH(DECL)
        for (long r = 0; r < j->reps; r++) { EACH(STEP) EACH(KEEP) }
        int s = 0;
        EACH(SUM)
        j->sink = (float)s;
        j->work = (double)j->reps * NACC * 64 * 2.0;
#undef STEP
    }
    if (j->kind == K_I16) {
#define STEP(i) c##i = _mm512_dpwssd_epi32(c##i, a, b);
        __m512i a = _mm512_set1_epi16(1), b = _mm512_set1_epi16(3);
        EACH(DECL)
        for (long r = 0; r < j->reps; r++) { EACH(STEP) EACH(KEEP) }
        int s = 0;
        EACH(SUM)
        j->sink = (float)s;
        j->work = (double)j->reps * NACC * 32 * 2.0;
#undef STEP
    }
#endif
}

static void *worker(void *arg) {
    job *j = arg;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(j->id, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
    if (j->kind == K_READ) {
        j->sink = (float)read_pass(j->buf, j->bytes);  // warm
        pthread_barrier_wait(j->bar);
        double t = now();
        for (long r = 0; r < j->reps; r++)
            j->sink += (float)(j->seq ? read_seq(j->buf, j->bytes) : read_pass(j->buf, j->bytes));
        j->seconds = now() - t;
        j->work = (double)j->bytes * j->reps;
    } else {
        long reps = j->reps;
        j->reps = reps / 20;
        compute(j);
        j->reps = reps;
        pthread_barrier_wait(j->bar);
        double t = now();
        compute(j);
        j->seconds = now() - t;
    }
    return NULL;
}

static double run(int kind, int threads, const uint8_t *buf, size_t bytes, long reps, int seq) {
    pthread_t th[64];
    job jobs[64];
    pthread_barrier_t bar;
    pthread_barrier_init(&bar, NULL, threads);
    size_t share = (bytes / threads) & ~(size_t)4095;
    for (int i = 0; i < threads; i++) {
        jobs[i] = (job){.kind = kind, .id = i, .seq = seq, .buf = buf ? buf + i * share : NULL,
                        .bytes = share, .reps = reps, .bar = &bar};
        pthread_create(&th[i], NULL, worker, &jobs[i]);
    }
    double work = 0, worst = 0;
    for (int i = 0; i < threads; i++) {
        pthread_join(th[i], NULL);
        work += jobs[i].work;
        if (jobs[i].seconds > worst) worst = jobs[i].seconds;
    }
    return work / worst / 1e9;
}

static int cmp(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
#define TRIES 5
static void report(const char *name, int kind, int threads, const uint8_t *buf, size_t bytes, long reps,
                   int seq, const char *unit, int last) {
    double v[TRIES];
    for (int i = 0; i < TRIES; i++) v[i] = run(kind, threads, buf, bytes, reps, seq);
    qsort(v, TRIES, sizeof v[0], cmp);
    printf("  {\"what\": \"%s\", \"threads\": %d, \"unit\": \"%s\", \"min\": %.1f, \"median\": %.1f, \"max\": %.1f}%s\n",
           name, threads, unit, v[0], v[TRIES / 2], v[TRIES - 1], last ? "" : ",");
    fflush(stdout);
}

int main(int argc, char **argv) {
    int maxt = argc > 1 ? atoi(argv[1]) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (maxt > 64) maxt = 64;
    if (maxt < 1) maxt = 1;
    const char *what = argc > 2 ? argv[2] : "all";
    size_t total = (size_t)500 << 20;
    if (!strcmp(what, "line")) {
        uint8_t *buf = mmap(NULL, total + 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (buf == MAP_FAILED) return 1;
        madvise(buf, total, MADV_HUGEPAGE);
        memset(buf, 1, total);
        printf("{\"peer\": \"limits\", \"threads\": %d, \"read_gbs\": {", maxt);
        const int sizes[] = {500, 250, 125, 64};
        for (int m = 0; m < 4; m++) {
            size_t b = (size_t)sizes[m] << 20;
            double best = 0;
            for (int seq = 0; seq < 2; seq++) {
                double v[TRIES];
                for (int i = 0; i < TRIES; i++) v[i] = run(K_READ, maxt, buf, b, (1L << 30) / (long)b, seq);
                qsort(v, TRIES, sizeof v[0], cmp);
                if (v[TRIES / 2] > best) best = v[TRIES / 2];
            }
            printf("%s\"%d\": %.1f", m ? ", " : "", sizes[m], best);
        }
        printf("}}\n");
        return 0;
    }
    // 4 KiB pages, then huge pages: both, since a runtime may or may not get the latter.
    printf("[\n");
    const int mbs[] = {500, 250, 125, 64, 24, 8};
    for (int huge = 0; huge < 2 && strcmp(what, "compute"); huge++) {
        uint8_t *buf = mmap(NULL, total + 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (buf == MAP_FAILED) return 1;
        madvise(buf, total, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
        for (size_t i = 0; i < total; i += 8) *(uint64_t *)(buf + i) = i;
        for (int m = 0; m < 6; m++)
            for (int t = 1; t <= maxt; t *= 2) {
                char name[96];
                size_t b = (size_t)mbs[m] << 20;
                long reps = (long)((size_t)3 << 30) / (long)b;
                snprintf(name, sizeof name, "read %d MiB, %s pages, 4 streams", mbs[m], huge ? "huge" : "4K");
                report(name, K_READ, t, buf, b, reps, 0, "GB/s", 0);
                snprintf(name, sizeof name, "read %d MiB, %s pages, 1 stream", mbs[m], huge ? "huge" : "4K");
                report(name, K_READ, t, buf, b, reps, 1, "GB/s", 0);
            }
        munmap(buf, total + 8192);
    }
    for (int t = 1; t <= maxt && strcmp(what, "read"); t *= 2) {
        report("f32 FMA", K_F32, t, NULL, 0, 40000000, 0, "GFLOP/s", 0);
#ifdef __AVX512BF16__
        report("bf16 dot (vdpbf16ps)", K_BF16, t, NULL, 0, 40000000, 0, "GFLOP/s", 0);
#endif
#ifdef __AVX512VNNI__
        report("int8 dot (vpdpbusd)", K_VNNI, t, NULL, 0, 40000000, 0, "GOP/s", 0);
        report("int16 dot (vpdpwssd)", K_I16, t, NULL, 0, 40000000, 0, "GOP/s", 0);
#endif
    }
    printf("  {\"what\": \"page size\", \"threads\": 0, \"unit\": \"bytes\", \"min\": %ld, \"median\": %ld, \"max\": %ld}\n]\n",
           sysconf(_SC_PAGESIZE), sysconf(_SC_PAGESIZE), sysconf(_SC_PAGESIZE));
    return 0;
}
