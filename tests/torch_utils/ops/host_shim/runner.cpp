// The kernels behind the interface of torch_utils/ops/csrc/launcher.cu, on the host.
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cuda_on_host.h"
#include "kernels.cuh"

namespace sg {

inline float from_bits(uint32_t bits) {
    float out;
    std::memcpy(&out, &bits, sizeof out);
    return out;
}

inline uint32_t to_bits(float v) {
    uint32_t bits;
    std::memcpy(&bits, &v, sizeof bits);
    return bits;
}

inline float widen(Half v) {
    const int exponent = v.bits >> 10 & 31, fraction = v.bits & 1023;
    const float sign = v.bits >> 15 ? -1.0f : 1.0f;
    if (exponent == 31) return fraction ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * std::ldexp(float(fraction), -24);
    return sign * std::ldexp(float(1024 + fraction), exponent - 25);
}

inline void narrow(float v, Half& out) {
    const unsigned sign = std::signbit(v) ? 0x8000u : 0u;
    const float size = std::fabs(v);
    if (!(size < 65520.0f)) {  // the first that rounds to infinity; a NaN comes here too
        out.bits = static_cast<unsigned short>(sign | (std::isnan(v) ? 0x7e00u : 0x7c00u));
        return;
    }
    int exponent = -24;
    if (size > 0.0f) std::frexp(size, &exponent);
    const int unit = std::max(exponent - 11, -24);  // value of the last place, as a power of two
    const auto places = static_cast<unsigned>(std::nearbyint(std::ldexp(size, -unit)));
    // Carries run over into the exponent by themselves, also from the largest subnormal into the first normal number.
    out.bits = static_cast<unsigned short>(sign + (unsigned(unit + 24) << 10) + places);
}

inline float widen(BFloat v) { return from_bits(uint32_t(v.bits) << 16); }

inline void narrow(float v, BFloat& out) {
    const double size = std::fabs(double(v));
    if (std::isnan(v)) {
        out.bits = 0x7fff;
        return;
    }
    uint32_t low = to_bits(float(size)) & 0xffff0000u;  // towards zero; the nearer neighbour, or the even one, wins
    const double below = from_bits(low);
    const double above = low == 0x7f7f0000u ? 0x1p128 : double(from_bits(low + 0x10000u));
    if (size - below > above - size || (size - below == above - size && (low & 0x10000u))) low += 0x10000u;
    out.bits = static_cast<unsigned short>(low >> 16 | (std::signbit(v) ? 0x8000u : 0u));
}

}  // namespace sg

namespace shim {

Index thread, block, grid;

namespace {

constexpr int STACK = 256 << 10;
constexpr int OK = 0, DIVERGED = 1, BAD_LAUNCH = 2, BARRIER_FORBIDDEN = 3;

struct Fiber {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(STACK);
    bool done = false;
};

ucontext_t scheduler;
std::vector<Fiber> fibers;
void (*body)() = nullptr;
// xorshift32; <random> would take a fourth of the time that it takes to compile all this.
struct Shuffler {
    using result_type = uint32_t;
    uint32_t state = 1;  // any but zero
    static constexpr uint32_t min() { return 0; }
    static constexpr uint32_t max() { return ~0u; }
    void seed(uint32_t seed) { state = (seed + 1) * 2654435761u | 1u; }
    uint32_t operator()() {
        state ^= state << 13;
        state ^= state >> 17;
        return state ^= state << 5;
    }
} shuffler;
bool forbidden_barrier = false, inside_fiber = false, counting = false;
std::vector<uintptr_t> sectors;
long long sectors_total = 0;

void enter(int index) {
    body();
    fibers[index].done = true;
}

// Runs all threads of the current block.
int run_fibers() {
    if (fibers.empty()) fibers.resize(sg::THREADS);
    std::vector<int> order(sg::THREADS);
    for (int i = 0; i < sg::THREADS; ++i) {
        order[i] = i;
        Fiber& fiber = fibers[i];
        fiber.done = false;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = &scheduler;
        makecontext(&fiber.context, reinterpret_cast<void (*)()>(enter), 1, i);
    }
    inside_fiber = true;
    int finished = 0;
    while (finished == 0) {
        std::shuffle(order.begin(), order.end(), shuffler);
        for (int i : order) {
            thread = {unsigned(i), 0, 0};
            swapcontext(&scheduler, &fibers[i].context);
            finished += fibers[i].done;
        }
    }
    inside_fiber = false;
    return finished == sg::THREADS ? OK : DIVERGED;
}

int run_block(bool has_barriers) {
    int code = OK;
    if (has_barriers) {
        code = run_fibers();
    } else {
        for (thread = {0, 0, 0}; thread.x < unsigned(sg::THREADS); ++thread.x) body();
        code = forbidden_barrier ? BARRIER_FORBIDDEN : OK;
    }
    std::sort(sectors.begin(), sectors.end());
    sectors_total += std::unique(sectors.begin(), sectors.end()) - sectors.begin();
    sectors.clear();
    return code;
}

int run_grid(bool has_barriers) {
    for (block.z = 0; block.z < grid.z; ++block.z)
        for (block.y = 0; block.y < grid.y; ++block.y)
            for (block.x = 0; block.x < grid.x; ++block.x)
                if (const int code = run_block(has_barriers)) return code;
    return OK;
}

}  // namespace

void barrier() {
    if (!inside_fiber) {
        forbidden_barrier = true;
        return;
    }
    const unsigned self = thread.x;
    swapcontext(&fibers[self].context, &scheduler);
    thread = {self, 0, 0};
}

void touch(const void* address, int bytes) {
    if (!counting) return;
    const auto first = reinterpret_cast<uintptr_t>(address);
    for (uintptr_t sector = first / 32; sector <= (first + bytes - 1) / 32; ++sector) sectors.push_back(sector);
}

}  // namespace shim

namespace {

const void* current_params = nullptr;

struct Entry {
    const char* name;
    void (*run)();
    int params_size;
};

#define SG_ENTRY(NAME, PARAMS, ...) \
    {#NAME, [] { sg::NAME(*static_cast<const sg::PARAMS*>(current_params)); }, sizeof(sg::PARAMS)},
const Entry entries[] = {SG_DTYPES(SG_ENTRY)};
constexpr int num_entries = sizeof(entries) / sizeof(entries[0]);

}  // namespace

extern "C" {

int sg_num_kernels() { return num_entries; }

const char* sg_kernel_name(int index) { return entries[index].name; }

int sg_params_size(int index) { return entries[index].params_size; }

const char* sg_error_text(int code) {
    static const char* const texts[] = {"no error", "some threads of a block did not reach the barrier",
                                        "the grid is larger than CUDA allows", "a kernel without barriers has one"};
    return texts[code];
}

int sg_check(int) { return shim::OK; }

int sg_launch(int index, unsigned grid_x, unsigned grid_y, unsigned grid_z, const void* params, int, void*) {
    if (grid_x > 0x7fffffffu || grid_y > 65535 || grid_z > 65535 || !grid_x || !grid_y || !grid_z) return shim::BAD_LAUNCH;
    shim::grid = {grid_x, grid_y, grid_z};
    shim::body = entries[index].run;
    shim::forbidden_barrier = false;
    current_params = params;
    return shim::run_grid(std::strncmp(entries[index].name, "fir4", 4) == 0);
}

void shim_seed(unsigned seed) { shim::shuffler.seed(seed); }

// Starts counting distinct 32-byte sectors per block, or ends it and returns their sum over the blocks.
long long shim_count(int start) {
    shim::counting = start != 0;
    const long long total = shim::sectors_total;
    shim::sectors_total = 0;
    return total;
}

}  // extern "C"

#ifdef SHIM_MAIN
// Replays launches from a file, for builds with sanitizers, which cannot be loaded into an ordinary Python. Per launch:
//   char kernel[64]; int grid_x, grid_y, grid_z, num_buffers, params_size; long long size[num_buffers];
//   int offset[num_buffers]; the params; then each buffer. offset[i] is where in the params the address of buffer i goes. The buffers are written
//   to the output file as they are after the launch.
namespace {

template <typename T> std::vector<T> take(std::FILE* file, size_t count) {
    std::vector<T> items(count);
    if (std::fread(items.data(), sizeof(T), count, file) != count) std::exit(3);
    return items;
}

}  // namespace

int main(int argc, char** argv) {
    std::FILE* in = argc == 3 ? std::fopen(argv[1], "rb") : nullptr;
    std::FILE* out = argc == 3 ? std::fopen(argv[2], "wb") : nullptr;
    if (!in || !out) return 2;
    int num_launches = take<int>(in, 1)[0];
    while (num_launches-- > 0) {
        const auto name = take<char>(in, 64);
        const auto head = take<int>(in, 5);
        const auto sizes = take<long long>(in, head[3]);
        const auto offsets = take<int>(in, head[3]);
        auto params = take<char>(in, head[4]);
        std::vector<char*> buffers;  // on the heap, one by one and of exact size: whatever lies beside is out of bounds
        for (int i = 0; i < head[3]; ++i) {
            const auto content = take<char>(in, sizes[i]);
            buffers.push_back(static_cast<char*>(std::malloc(sizes[i])));
            std::memcpy(buffers[i], content.data(), sizes[i]);
            std::memcpy(params.data() + offsets[i], &buffers[i], sizeof(char*));
        }
        // The parameters are copied to where their type may stand.
        std::vector<long long> aligned(params.size() / sizeof(long long));
        std::memcpy(aligned.data(), params.data(), params.size());
        int kernel = 0;
        while (kernel < num_entries && std::strcmp(entries[kernel].name, name.data()) != 0) ++kernel;
        if (kernel == num_entries) return 4;
        if (const int code = sg_launch(kernel, head[0], head[1], head[2], aligned.data(), 0, nullptr)) return 10 + code;
        for (int i = 0; i < head[3]; ++i) {
            std::fwrite(buffers[i], 1, sizes[i], out);
            std::free(buffers[i]);
        }
    }
    std::fclose(out);
    return 0;
}
#endif
