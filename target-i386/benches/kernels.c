/* The kernels of the benchmark, as position-independent code without calls to anything else.
 * kernels.hex: gcc -O2 -fno-tree-vectorize -fno-stack-protector -fcf-protection=none -ffreestanding
 * -fno-math-errno -fPIE -c kernels.c &&
 * ld of .text and .rodata at 0 in one piece, objcopy -O binary, then one
 * line "name offset" per function and the bytes. All take (memory, n) and return a checksum. */
typedef unsigned long u64;
typedef unsigned int u32;
typedef unsigned char u8;

u64 sieve(u8 *m, u64 n) {
    u64 count = 0;
    for (u64 i = 0; i < n; i++) m[i] = 1;
    for (u64 i = 2; i < n; i++)
        if (m[i]) {
            count++;
            for (u64 j = i + i; j < n; j += i) m[j] = 0;
        }
    return count;
}
u64 crc32(u32 *table, u64 n) {
    u8 *data = (u8 *)(table + 256);
    for (u32 i = 0; i < 256; i++) {
        u32 c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
        table[i] = c;
    }
    u32 c = ~0u;
    for (u64 i = 0; i < n; i++) c = table[(c ^ data[i & 0xfff]) & 255] ^ (c >> 8);
    return ~c;
}
struct node { u64 next, value, pad[6]; };
u64 list(struct node *m, u64 n) {
    u64 sum = 0, at = 0;
    for (u64 i = 0; i < 4096; i++) { m[i].next = (i * 1664525 + 1013904223) & 4095; m[i].value = i; }
    for (u64 i = 0; i < n; i++) { struct node *p = &m[at]; sum += p->value; at = p->next; }
    return sum;
}
static __attribute__((noinline)) u64 fibonacci(u64 n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }
u64 fib(u8 *m, u64 n) { (void)m; return fibonacci(n); }
u64 vm(u8 *code, u64 n) {
    static const u8 program[] = { 0, 1, 2, 3, 4, 5, 6, 0, 2, 1, 7 };
    u64 a = 1, b = 2, left = n;
    for (u64 i = 0; i < sizeof program; i++) code[i] = program[i];
    u8 *pc = code;
    for (;;) switch (*pc++) {
        case 0: a += b; break;
        case 1: b ^= a; break;
        case 2: a = a << 3 | a >> 61; break;
        case 3: b -= a; break;
        case 4: a &= ~1ul; break;
        case 5: b += 7; break;
        case 6: a ^= b; break;
        case 7: if (!--left) return a; pc = code; break;
        default: return 0;
    }
}
struct rec { u32 a, b; u64 c; u8 d, e; short f; };
u64 fields(struct rec *r, u64 n) {
    for (u64 i = 0; i < 64; i++) { r[i].a = i; r[i].b = 2 * i; r[i].c = 3 * i; r[i].d = i; r[i].e = 1; r[i].f = -i; }
    u64 sum = 0;
    for (u64 k = 0; k < n; k++)
        for (u64 i = 0; i < 64; i++) {
            r[i].a += r[i].b; r[i].c ^= r[i].a; r[i].d += r[i].e; r[i].f -= r[i].d; sum += r[i].c + r[i].f;
        }
    return sum;
}
static __attribute__((noinline)) void quick(u32 *a, long lo, long hi) {
    while (lo < hi) {
        u32 p = a[(lo + hi) / 2];
        long i = lo, j = hi;
        while (i <= j) {
            while (a[i] < p) i++;
            while (a[j] > p) j--;
            if (i <= j) { u32 t = a[i]; a[i] = a[j]; a[j] = t; i++; j--; }
        }
        quick(a, lo, j);
        lo = i;
    }
}
u64 qsort(u32 *a, u64 n) {
    u32 x = 12345;
    for (u64 i = 0; i < n; i++) { x = x * 1664525 + 1013904223; a[i] = x >> 4; }
    quick(a, 0, n - 1);
    u64 sum = 0;
    for (u64 i = 0; i < n; i++) sum += i * a[i];
    return sum;
}
u64 axpy(double *x, u64 n) {
    double *y = x + 1024;
    for (u64 i = 0; i < 1024; i++) { x[i] = i; y[i] = 1; }
    for (u64 k = 0; k < n; k++)
        for (u64 i = 0; i < 1024; i++) y[i] += 0.5 * x[i];
    double s = 0;
    for (u64 i = 0; i < 1024; i++) s += y[i];
    return (u64)s;
}
struct body { double at[3], v[3], mass; };
u64 nbody(struct body *b, u64 n) {
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < 3; k++) {
            b[i].at[k] = (i * 7 + k * 5) % 11 - 5;
            b[i].v[k] = ((i * 5 + k * 3) % 7 - 3) * 0.125;
            b[i].mass = 1 + i;
        }
    for (u64 t = 0; t < n; t++) {
        for (int i = 0; i < 5; i++)
            for (int j = i + 1; j < 5; j++) {
                double d[3], r = 0.01;
                for (int k = 0; k < 3; k++) { d[k] = b[i].at[k] - b[j].at[k]; r += d[k] * d[k]; }
                double m = 0.001 / (r * __builtin_sqrt(r));
                for (int k = 0; k < 3; k++) { b[i].v[k] -= d[k] * b[j].mass * m; b[j].v[k] += d[k] * b[i].mass * m; }
            }
        for (int i = 0; i < 5; i++)
            for (int k = 0; k < 3; k++) b[i].at[k] += 0.001 * b[i].v[k];
    }
    u64 sum = 0;
    for (int i = 0; i < 5; i++) sum = sum * 31 + *(u64 *)&b[i].at[0];
    return sum;
}
u64 mandel(u8 *m, u64 n) {
    (void)m;
    u64 sum = 0;
    for (u64 y = 0; y < n; y++)
        for (u64 x = 0; x < n; x++) {
            double cr = 3.0 * (long)x / (long)n - 2, ci = 2.0 * (long)y / (long)n - 1, a = 0, b = 0;
            u64 i = 0;
            for (; i < 200 && a * a + b * b < 4; i++) { double t = a * a - b * b + cr; b = 2 * a * b + ci; a = t; }
            sum += i;
        }
    return sum;
}
#define _MM_MALLOC_H_INCLUDED /* (It would bring in the C library.) */
#include <emmintrin.h>
/* Packed integers: blends two rows of bytes and sums the differences. */
u64 pixels(u8 *m, u64 n) {
    u8 *p = m, *q = m + 4096, *r = m + 8192;
    for (int i = 0; i < 4096; i++) { p[i] = i * 7; q[i] = i * 13 >> 2; }
    __m128i zero = _mm_setzero_si128(), sum = zero, w = _mm_set1_epi16(77), v = _mm_set1_epi16(256 - 77);
    for (u64 k = 0; k < n; k++)
        for (int i = 0; i < 4096; i += 16) {
            __m128i a = _mm_loadu_si128((__m128i *)(p + i)), b = _mm_loadu_si128((__m128i *)(q + i));
            __m128i lo = _mm_add_epi16(_mm_mullo_epi16(_mm_unpacklo_epi8(a, zero), w), _mm_mullo_epi16(_mm_unpacklo_epi8(b, zero), v));
            __m128i hi = _mm_add_epi16(_mm_mullo_epi16(_mm_unpackhi_epi8(a, zero), w), _mm_mullo_epi16(_mm_unpackhi_epi8(b, zero), v));
            __m128i c = _mm_packus_epi16(_mm_srli_epi16(lo, 8), _mm_srli_epi16(hi, 8));
            _mm_storeu_si128((__m128i *)(r + i), _mm_max_epu8(c, _mm_avg_epu8(a, b)));
            sum = _mm_add_epi64(sum, _mm_sad_epu8(c, b));
        }
    return _mm_cvtsi128_si64(sum) + _mm_cvtsi128_si64(_mm_srli_si128(sum, 8));
}
