// The only process of a Linux guest: runs a model with llama.cpp, prints the rates and powers off.
//
// The program does what the unikernel's benchmark does, with `/model.gguf`. The kernel passes unknown
// boot arguments in the environment: `threads`, `prompt` and `tokens`.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "guest.h"
#include "llama.h"

static int number(const char *name) {
    const char *value = getenv(name);
    return value ? atoi(value) : 0;
}

static double seconds() {
    using namespace std::chrono;
    return duration<double>(steady_clock::now().time_since_epoch()).count();
}

// Shows only the errors of llama.cpp's log.
static void log_errors(ggml_log_level level, const char *text, void *) {
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stdout);
}

static bool decode(llama_context *context, std::vector<llama_token> tokens) {
    return llama_decode(context, llama_batch_get_one(tokens.data(), (int)tokens.size())) == 0;
}

static bool measure() {
    llama_log_set(log_errors, nullptr);
    llama_backend_init();
    llama_model *model = llama_model_load_from_file("/model.gguf", llama_model_default_params());
    if (!model) return false;
    const llama_vocab *vocab = llama_model_get_vocab(model);

    llama_context_params params = llama_context_default_params();
    params.n_ctx = 256;
    params.n_threads = params.n_threads_batch = number("threads");
    llama_context *context = llama_init_from_model(model, params);
    if (!context) return false;

    const int n_prompt = number("prompt"), n_tokens = number("tokens");
    std::vector<llama_token> prompt(n_prompt);
    for (int i = 0; i < n_prompt; i++) prompt[i] = 3 + i;

    const double start = seconds();
    if (!decode(context, prompt)) return false;
    const double first = seconds();
    // The first token comes from the prompt's logits. No forward pass follows the last token.
    for (int i = 1; i < n_tokens; i++) {
        const float *logits = llama_get_logits_ith(context, -1);
        const float *best = std::max_element(logits, logits + llama_vocab_n_tokens(vocab));
        if (!decode(context, {(llama_token)(best - logits)})) return false;
    }
    const double end = seconds();
    printf("\npeer prompt_per_s=%.4f generate_per_s=%.4f\n", n_prompt / (first - start),
           (n_tokens - 1) / (end - first));
    return true;
}

int main() {
    start();
    if (!measure()) puts("\npeer failed");
    power_off();
    return 1;
}
