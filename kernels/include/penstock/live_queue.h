// The queue of a serial lane as a schedule that is kept feasible: rows wait in planned batches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "penstock/cost_grid.h"
#include "penstock/deadline_tree.h"

namespace penstock {

// Bounds and weights of a LiveQueue.
struct LiveQueueLimits {
  std::int64_t batch_tokens_max;  // rows times padded length of a batch; a longer single row runs alone
  double efficiency;              // a batch is full once its cost a row is within this of the best, 0 .. 1
  std::int64_t margin_ns;         // rows are due this much before their deadline
  std::int64_t quantum_ns;        // how far a tenant's virtual time may run ahead of the last one's
  double reserve;                 // share of a batch's time that is kept free after it, until set_reserve changes it
};

// Who asks for what. Rows are indices into `starts`, as in TokenRows; the caller has checked them.
struct Arrival {
  std::int32_t model;
  std::int32_t request_class;  // 1 .. 4, as RequestClass; class 1 runs before all others
  std::int32_t tenant;
  std::int64_t urgency_ns;   // orders the schedule
  std::int64_t deadline_ns;  // kNever for none
  const std::int64_t* starts;
  const std::int32_t* rows;
  std::size_t count;
  std::int64_t now_ns;
  std::int64_t free_ns;  // when the lane is free, at least now_ns
  double share;          // of the lane's time until the deadline that is the tenant's in any case; 1 or more: all
  double others;         // of that time what other tenants use, at least 0
};

enum class Verdict : int { kAdmitted = 0, kUnmeetable = 1, kLate = 2, kHarmful = 3, kOverShare = 4 };

struct Answer {
  Verdict verdict;
  std::int32_t work;         // handle, if admitted
  std::int64_t shortage_ns;  // how much too little time there was, if refused
  std::int64_t cost_ns;      // what the work adds to the schedule; if refused, what it costs by itself
};

// Some rows of one work that leave the queue; `rows` of them at `first` in the list of rows.
struct LeavingPart {
  std::int32_t work;
  std::int32_t rows;
  std::size_t first;
  bool is_last;  // no row of the work waits any more; its handle is free
};

struct Batch {
  std::int32_t model;
  std::int32_t rows;
  std::int32_t padded_length;
  std::int64_t tokens;
  std::int64_t cost_ns;  // upper
};

// Rows wait in units: planned batches of one model and rank, ordered by the urgency of the row that opened each.
// The invariant is a certificate: at upper costs, run in order from the time the lane is free, every unit ends
// before its members are due. `admit` takes work only if that stays so (by joining units where that is cheaper
// than a unit of its own), and `take` leaves the order, for fairness, only as far as the slack allows. So what was
// admitted is on time if no batch exceeds its upper cost, whatever arrives later and whatever is cancelled.
//
// Fairness: a tenant's virtual time grows with the cost of its rows over its weight; units are taken from tenants
// within a quantum of the least one, earliest first. Rows of others that are beyond it are put off, into a unit of
// their own, when the unit in which they ride is taken. A row joins only units whose turn is about its own. Where
// there are others, a tenant's queue may fill the time until its deadlines but for what they use, or have waiting,
// and a quantum; or its share if that is more. A first call, and a queue of a quantum, are never too much.
//
// Deterministic; not thread-safe. n is the number of waiting units, u of rows in a unit.
class LiveQueue {
 public:
  explicit LiveQueue(const LiveQueueLimits& limits) : limits_(limits) {}

  // The grid's arrays must outlive the queue.
  std::int32_t add_model(const CostGrid& grid);
  std::int32_t add_tenant(double weight);
  void set_weight(std::int32_t tenant, double weight) noexcept { tenants_[tenant].weight = weight; }
  void set_batch_cost_max(std::int64_t cost_ns) noexcept { batch_cost_max_ns_ = cost_ns; }
  // From now on; units that wait keep what was kept free after them, until `reprice`. O(1).
  void set_reserve(double reserve) noexcept { limits_.reserve = reserve; }

  // O(log n) for each row of works of a few rows, O(rows log rows) for larger ones.
  Answer admit(const Arrival& arrival);
  // Removes a work's waiting rows. O(log n + u) for each unit they are in.
  void cancel(std::int32_t work);
  // Removes all works whose deadline has passed, into `parts` and `rows`.
  void expire(std::int64_t now_ns);
  // Removes the next batch, into `parts` and `rows`. O(tenants that wait + log n + u).
  std::optional<Batch> take(std::int64_t free_ns);
  // Computes all costs anew, after the grid has changed. O(n log n).
  void reprice();

  // What the last `expire` or `take` removed.
  const std::vector<LeavingPart>& parts() const noexcept { return parts_; }
  const std::vector<std::int32_t>& rows() const noexcept { return rows_; }

  // Least slack of all that waits if the lane is free at `free_ns`; kNever if nothing has a deadline.
  std::int64_t least_slack(std::int64_t free_ns) const noexcept;
  std::int64_t cost() const noexcept { return schedule_.total_cost(); }
  std::int64_t waiting_rows(std::int32_t request_class) const noexcept { return class_rows_[request_class]; }
  std::int64_t waiting_tokens(std::int32_t request_class) const noexcept { return class_tokens_[request_class]; }
  double virtual_time(std::int32_t tenant) const noexcept { return tenants_[tenant].virtual_ns; }
  std::int64_t queued_cost(std::int32_t tenant) const noexcept { return tenants_[tenant].queue.total_cost(); }
  std::int64_t queued_tokens(std::int32_t tenant) const noexcept { return tenants_[tenant].tokens; }

 private:
  static constexpr std::int32_t kRanks = 2;
  static constexpr std::int32_t kClasses = 5;

  struct Member {
    std::int32_t work;
    std::int32_t row;
    std::int32_t length;
  };
  struct Unit {
    DeadlineTree::Node node = DeadlineTree::kNone;
    std::int32_t model = 0;
    std::int32_t rank = 0;
    std::int32_t tenant = 0;  // whose turn it takes
    std::int32_t padded_length = 0;
    std::int64_t rows_full = 1;
    std::int64_t cost_ns = 0;
    double tag = 0;  // virtual time at which its turn comes
    double reserve = 0;
    bool is_open = false;
    std::vector<Member> members;
  };
  struct Work {
    std::int64_t deadline_ns = kNever;
    std::int64_t sequence = -1;  // -1: the handle is free
    std::int32_t request_class = 0;
    std::int32_t tenant = 0;
    std::int64_t rows = 0;
    std::int64_t tokens = 0;
    DeadlineTree::Node queued = DeadlineTree::kNone;
    std::vector<std::int32_t> units;  // may name units that its rows have left
  };
  struct Tenant {
    double weight = 1;
    double virtual_ns = 0;
    std::int64_t rows = 0;
    std::int64_t tokens = 0;
    DeadlineTree queue;  // its works: deadlines and costs
    std::set<std::pair<ScheduleKey, std::int32_t>> units[kRanks];
  };
  struct Expiry {
    std::int64_t deadline_ns;
    std::int64_t sequence;
    std::int32_t work;
    auto operator<=>(const Expiry&) const = default;
  };
  struct Join {
    std::int64_t added_ns;
    std::int32_t unit;
  };
  // Open units of one model and rank, by padded length and age.
  using OpenUnits = std::map<std::pair<std::int32_t, std::int64_t>, std::int32_t>;

  static std::int64_t reserved(std::int64_t cost_ns, double reserve) noexcept;
  std::int64_t due(std::int64_t deadline_ns) const noexcept;
  std::int64_t rows_full(std::int32_t model, std::int32_t padded_length) const noexcept;
  std::int64_t upper(const Unit& unit, std::int64_t rows, std::int32_t padded_length) const noexcept;
  OpenUnits& open_units(const Unit& unit) { return open_[static_cast<std::size_t>(unit.model * kRanks + unit.rank)]; }

  void sort_rows(const Arrival& arrival);
  std::int64_t cost_alone(const Arrival& arrival, double reserve) const noexcept;
  Answer judge_share(const Arrival& arrival, std::int64_t cost_ns) const noexcept;
  Answer place_rows(const Arrival& arrival, std::int32_t work);
  Answer place_row(const Arrival& arrival, std::int32_t work, std::size_t index);
  Answer place_units(const Arrival& arrival, std::int32_t work);
  bool may_join(const Arrival& arrival, const Unit& unit, double tag) const noexcept;
  void find_joins(const Arrival& arrival, std::int32_t length, std::int64_t below_ns);
  Answer judge(const Arrival& arrival, const ScheduleKey& key, std::int64_t cost_ns) const noexcept;

  std::int32_t new_work(const Arrival& arrival);
  void account(const Arrival& arrival, std::int32_t work, std::int64_t cost_ns);
  void leave(std::int32_t work, std::int64_t rows, std::int64_t tokens);
  void free_if_done(std::int32_t work);
  std::int32_t new_unit(std::int32_t model, std::int32_t tenant, const ScheduleKey& key, double tag);
  void add_member(std::int32_t unit, std::int32_t work, std::size_t index);
  void drop_from(std::int32_t unit, std::int32_t work);
  void settle(std::int32_t unit);
  void open(std::int32_t unit);
  void close(std::int32_t unit);
  void free_unit(std::int32_t unit);
  void drop(std::int32_t work);
  void watch(std::int32_t work);
  double turn(std::int32_t tenant) const noexcept;

  std::int32_t choose(std::int64_t free_ns);
  bool is_ahead(std::int32_t tenant) const noexcept { return tenants_[tenant].virtual_ns > turn_limit_ns_; }
  void put_off_riders(std::int32_t unit, std::int64_t free_ns);
  void merge_others(std::int32_t unit, std::int64_t free_ns);
  bool merge(std::int32_t unit, std::int32_t other, std::int64_t free_ns);
  void charge(const Unit& unit);
  void list_members(const Unit& unit);

  LiveQueueLimits limits_;
  std::int64_t batch_cost_max_ns_ = kNever;
  std::vector<CostGrid> grids_;
  std::vector<OpenUnits> open_;
  std::vector<Tenant> tenants_;
  std::vector<Unit> units_;
  std::vector<std::int32_t> free_units_;
  std::vector<Work> works_;
  std::vector<std::int32_t> free_works_;
  std::vector<std::int32_t> unit_of_node_;
  std::set<std::int32_t> owners_[kRanks];  // tenants that own units
  DeadlineTree schedule_;
  std::vector<Expiry> expiries_;  // heap, earliest first; works that have left stay until they are half of it
  std::size_t works_with_deadline_ = 0;
  std::int64_t sequence_ = 0;
  double virtual_floor_ns_ = 0;
  double turn_limit_ns_ = 0;  // tenants beyond it are not to be served now
  std::int64_t class_rows_[kClasses] = {};
  std::int64_t class_tokens_[kClasses] = {};

  // Of the call under way.
  std::vector<std::pair<std::int32_t, std::int32_t>> sorted_;  // length, row; longest first
  std::vector<Join> joins_;
  std::vector<LeavingPart> parts_;
  std::vector<std::int32_t> rows_;
};

}  // namespace penstock
