// ONNX Runtime's library posing as one for GPUs: "CUDA" is the processor. With POSING_DECODER set, that file is loaded in place of
// mask_decoder.onnx there, as if that provider computed wrongly. Positions in the table come from the test.
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const void *(*get_api)(unsigned);
    const char *(*get_version)(void);
} Base;

static const Base *real_base;
static void *table[ENTRIES];
static void *const *real;
static int is_cuda, nothing;

static void *create_options(void **out) { *out = &nothing; return 0; }
static void *update_options(void *o, const char *const *k, const char *const *v, size_t n) { return 0; }
static void release_options(void *o) {}
static void *append(void *session_options, const void *o) { is_cuda = 1; return 0; }

static void *memory_info(const char *name, int type, int id, int memory, void **out) {
    void *(*create)(const char *, int, int, int, void **) = real[MEMORY_INFO];
    return create(strcmp(name, "Cuda") ? name : "Cpu", type, id, memory, out);
}

static void *register_allocator(void *env, const char *provider, const void *memory, const void *arena, const char *const *k,
                                const char *const *v, size_t n) {
    void *(*create)(void *, const void *, const void *) = real[REGISTER];
    return create(env, memory, arena);
}

static void *session(const void *env, const char *path, const void *options, void **out) {
    void *(*create)(const void *, const char *, const void *, void **) = real[SESSION];
    const char *other = getenv("POSING_DECODER");
    return create(env, is_cuda && other && strstr(path, "mask_decoder.onnx") ? other : path, options, out);
}

static const void *get_api(unsigned version) {
    real = real_base->get_api(version);
    if (!real) return 0;
    memcpy(table, (const void *)real, sizeof table);
    table[CREATE_OPTIONS] = create_options;
    table[UPDATE_OPTIONS] = update_options;
    table[RELEASE_OPTIONS] = release_options;
    table[APPEND] = append;
    table[MEMORY_INFO] = memory_info;
    table[REGISTER_V2] = register_allocator;
    table[SESSION] = session;
    return table;
}

static const char *get_version(void) { return real_base->get_version(); }

static const Base base = {get_api, get_version};

const Base *OrtGetApiBase(void) {
    void *library = dlopen(getenv("POSING_AS"), RTLD_NOW | RTLD_LOCAL);
    const Base *(*get)(void) = library ? dlsym(library, "OrtGetApiBase") : 0;
    if (!get) return 0;
    real_base = get();
    return &base;
}
