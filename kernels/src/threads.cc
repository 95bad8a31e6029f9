#include "penstock/threads.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace penstock {
namespace {

std::atomic<std::uint64_t> forks{0};

void count_fork() noexcept { forks.fetch_add(1, std::memory_order_relaxed); }

// A call of run(): helpers take tickets for it as long as there are any.
struct Call {
  Workers::Job job;
  void* argument;
  std::size_t tickets;      // helpers that may still join
  std::size_t running = 0;  // helpers within the job
};

// Python handles signals in its main thread: ours must not take them away from it.
class SignalsBlocked {
 public:
  SignalsBlocked() noexcept {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

}  // namespace

std::uint64_t fork_generation() noexcept {
  static const int registered = pthread_atfork(nullptr, nullptr, count_fork);
  static_cast<void>(registered);
  return forks.load(std::memory_order_relaxed);
}

struct Workers::State {
  const std::uint64_t generation = fork_generation();
  std::mutex mutex;
  std::condition_variable work_came;
  std::condition_variable job_ended;
  std::deque<Call*> calls;  // with tickets left
  std::vector<std::thread> threads;
  std::size_t idle = 0;
  bool is_closing = false;

  void serve() {
    std::unique_lock lock(mutex);
    while (true) {
      ++idle;
      work_came.wait(lock, [&] { return is_closing || !calls.empty(); });
      --idle;
      if (is_closing) return;
      Call& call = *calls.front();
      if (--call.tickets == 0) calls.pop_front();
      ++call.running;
      lock.unlock();
      call.job(call.argument);
      lock.lock();
      if (--call.running == 0) job_ended.notify_all();
    }
  }

  // Needs the lock.
  void start_threads(std::size_t wanted) {
    const SignalsBlocked blocked;
    try {
      while (threads.size() < wanted) threads.emplace_back([this] { serve(); });
    } catch (const std::system_error&) {  // no more threads: fewer must do
    } catch (const std::bad_alloc&) {
    }
  }
};

Workers::Workers(std::size_t threads_max) : threads_max_(threads_max) { fork_generation(); }

Workers::~Workers() {
  State* last = state_.exchange(nullptr);
  if (!last || last->generation != fork_generation()) return;
  {
    const std::lock_guard lock(last->mutex);
    last->is_closing = true;
  }
  last->work_came.notify_all();
  for (std::thread& thread : last->threads) thread.join();
  delete last;
}

// The parent's state cannot be freed in a child: its threads are not there to be joined.
Workers::State* Workers::state() {
  State* current = state_.load(std::memory_order_acquire);
  while (!current || current->generation != fork_generation()) {
    auto fresh = std::make_unique<State>();
    if (state_.compare_exchange_strong(current, fresh.get(), std::memory_order_acq_rel)) return fresh.release();
  }
  return current;
}

void Workers::run(std::size_t helpers, Job job, void* argument) noexcept {
  helpers = std::min(helpers, threads_max_);
  Call call{job, argument, helpers};
  State* shared = nullptr;
  if (helpers) try {
      shared = state();
      const std::lock_guard lock(shared->mutex);
      shared->calls.push_back(&call);
      if (shared->idle < helpers) shared->start_threads(std::min(threads_max_, shared->threads.size() + helpers - shared->idle));
    } catch (const std::bad_alloc&) {
      shared = nullptr;
    }
  if (shared) helpers > 1 ? shared->work_came.notify_all() : shared->work_came.notify_one();
  job(argument);
  if (!shared) return;
  std::unique_lock lock(shared->mutex);
  if (call.tickets) std::erase(shared->calls, &call);
  shared->job_ended.wait(lock, [&] { return call.running == 0; });
}

}  // namespace penstock
