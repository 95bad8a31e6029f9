// How rows leave a LiveQueue: taken for a batch, cancelled or expired.
#include <algorithm>

#include "penstock/live_queue.h"

namespace penstock {
namespace {

// Units after the chosen one that are looked at for a merger.
constexpr int kMergedLookahead = 16;

}  // namespace

// Empty rows have no length to share by; one token each then.
static std::int64_t weighed(std::int32_t length) noexcept { return std::max(length, 1); }

void LiveQueue::watch(std::int32_t work) {
  ++works_with_deadline_;
  if (expiries_.size() >= 2 * works_with_deadline_ + 64) {
    std::erase_if(expiries_, [this](const Expiry& entry) { return works_[entry.work].sequence != entry.sequence; });
    std::make_heap(expiries_.begin(), expiries_.end(), std::greater<>());
  }
  expiries_.push_back({works_[work].deadline_ns, works_[work].sequence, work});
  std::push_heap(expiries_.begin(), expiries_.end(), std::greater<>());
}

// Takes rows of a work out of the sums.
void LiveQueue::leave(std::int32_t handle, std::int64_t rows, std::int64_t tokens) {
  Work& work = works_[handle];
  Tenant& tenant = tenants_[work.tenant];
  class_rows_[work.request_class] -= rows;
  class_tokens_[work.request_class] -= tokens;
  tenant.rows -= rows;
  tenant.tokens -= tokens;
  const std::int64_t cost_ns = tenant.queue.cost(work.queued);
  if (rows < work.rows) {
    tenant.queue.update(work.queued, kNever, cost_ns - cost_ns / work.rows * rows);
  } else {
    tenant.queue.erase(work.queued);
  }
  work.rows -= rows;
  work.tokens -= tokens;
}

void LiveQueue::free_if_done(std::int32_t handle) {
  Work& work = works_[handle];
  if (work.rows) return;
  if (work.deadline_ns < kNever) --works_with_deadline_;
  work.sequence = -1;
  free_works_.push_back(handle);
}

void LiveQueue::free_unit(std::int32_t handle) {
  Unit& unit = units_[handle];
  close(handle);
  Tenant& tenant = tenants_[unit.tenant];
  tenant.units[unit.rank].erase({schedule_.key(unit.node), handle});
  if (tenant.units[unit.rank].empty()) owners_[unit.rank].erase(unit.tenant);
  schedule_.erase(unit.node);
  unit.node = DeadlineTree::kNone;
  unit.members.clear();
  free_units_.push_back(handle);
}

// Measures a unit anew after some of its rows have left, or costs have changed.
void LiveQueue::settle(std::int32_t handle) {
  Unit& unit = units_[handle];
  if (unit.members.empty()) return free_unit(handle);
  close(handle);
  std::int32_t padded = 0;
  std::int64_t due_ns = kNever;
  bool is_owned = false;
  for (const Member& member : unit.members) {
    padded = std::max(padded, member.length);
    due_ns = std::min(due_ns, due(works_[member.work].deadline_ns));
    is_owned |= works_[member.work].tenant == unit.tenant;
  }
  unit.padded_length = padded;
  unit.rows_full = rows_full(unit.model, padded);
  unit.cost_ns = upper(unit, static_cast<std::int64_t>(unit.members.size()), padded);
  schedule_.update(unit.node, due_ns, reserved(unit.cost_ns, unit.reserve));
  if (!is_owned) {  // its turn goes to whoever is left
    Tenant& old_owner = tenants_[unit.tenant];
    old_owner.units[unit.rank].erase({schedule_.key(unit.node), handle});
    if (old_owner.units[unit.rank].empty()) owners_[unit.rank].erase(unit.tenant);
    unit.tenant = works_[unit.members.front().work].tenant;
    tenants_[unit.tenant].units[unit.rank].emplace(schedule_.key(unit.node), handle);
    owners_[unit.rank].insert(unit.tenant);
  }
  open(handle);
}

void LiveQueue::drop_from(std::int32_t handle, std::int32_t work) {
  Unit& unit = units_[handle];
  if (unit.node == DeadlineTree::kNone) return;
  if (std::erase_if(unit.members, [work](const Member& member) { return member.work == work; })) settle(handle);
}

// Takes a work's rows out of all units.
void LiveQueue::drop(std::int32_t work) {
  for (const std::int32_t unit : works_[work].units) drop_from(unit, work);
  works_[work].units.clear();
}

void LiveQueue::cancel(std::int32_t work) {
  drop(work);
  leave(work, works_[work].rows, works_[work].tokens);
  free_if_done(work);
}

void LiveQueue::expire(std::int64_t now_ns) {
  parts_.clear();
  rows_.clear();
  while (!expiries_.empty() && expiries_.front().deadline_ns <= now_ns) {
    const Expiry entry = expiries_.front();
    std::pop_heap(expiries_.begin(), expiries_.end(), std::greater<>());
    expiries_.pop_back();
    Work& work = works_[entry.work];
    if (work.sequence != entry.sequence) continue;
    const std::size_t first = rows_.size();
    for (const std::int32_t handle : work.units) {
      if (units_[handle].node == DeadlineTree::kNone) continue;
      for (const Member& member : units_[handle].members) {
        if (member.work == entry.work) rows_.push_back(member.row);
      }
      // A unit may be named twice: its rows must be listed once.
      drop_from(handle, entry.work);
    }
    work.units.clear();
    parts_.push_back({entry.work, static_cast<std::int32_t>(rows_.size() - first), first, true});
    leave(entry.work, work.rows, work.tokens);
    free_if_done(entry.work);
  }
}

std::int64_t LiveQueue::least_slack(std::int64_t free_ns) const noexcept {
  const DeadlineTree::Node first = schedule_.first();
  if (first == DeadlineTree::kNone) return kNever;
  const std::int64_t own_ns = schedule_.due(first) - schedule_.cost(first);
  return std::min(own_ns, schedule_.least_slack_after(schedule_.key(first))) - free_ns;
}

// The first unit among those of tenants whose turn it is, if those before it can wait that long; else the first.
std::int32_t LiveQueue::choose(std::int64_t free_ns) {
  const std::int32_t head = unit_of_node_[schedule_.first()];
  const std::int32_t rank = units_[head].rank;
  double least = 0;
  bool is_first = true;
  for (const std::int32_t tenant : owners_[rank]) {
    if (is_first || tenants_[tenant].virtual_ns < least) least = tenants_[tenant].virtual_ns;
    is_first = false;
  }
  virtual_floor_ns_ = std::max(virtual_floor_ns_, least);
  turn_limit_ns_ = least + static_cast<double>(limits_.quantum_ns);
  const std::pair<ScheduleKey, std::int32_t>* best = nullptr;
  for (const std::int32_t tenant : owners_[rank]) {
    if (is_ahead(tenant)) continue;
    const auto& first = *tenants_[tenant].units[rank].begin();
    if (!best || first.first < best->first) best = &first;
  }
  const std::int64_t cost_ns = schedule_.cost(units_[best->second].node);
  return schedule_.least_slack_before(best->first) - free_ns >= cost_ns ? best->second : head;
}

// Moves rows of tenants that are ahead of their turn out of a unit of another tenant, right behind it in the
// schedule, if all stays in time: two batches cost more than one.
void LiveQueue::put_off_riders(std::int32_t handle, std::int64_t free_ns) {
  std::vector<Member> kept, riders;
  for (const Member& member : units_[handle].members) {
    const std::int32_t tenant = works_[member.work].tenant;
    (tenant != units_[handle].tenant && is_ahead(tenant) ? riders : kept).push_back(member);
  }
  if (riders.empty()) return;
  std::int32_t kept_length = 0, riders_length = 0;
  std::int64_t due_ns = kNever;
  for (const Member& member : kept) kept_length = std::max(kept_length, member.length);
  for (const Member& member : riders) {
    riders_length = std::max(riders_length, member.length);
    due_ns = std::min(due_ns, due(works_[member.work].deadline_ns));
  }
  const Unit& unit = units_[handle];
  const ScheduleKey key{unit.rank, schedule_.key(unit.node).urgency_ns, sequence_++};
  const auto cost = [&](const std::vector<Member>& members, std::int32_t length) {
    return reserved(upper(unit, static_cast<std::int64_t>(members.size()), length), unit.reserve);
  };
  const std::int64_t added_ns = cost(kept, kept_length) + cost(riders, riders_length) - schedule_.cost(unit.node);
  if (free_ns + schedule_.cost_before(key) + added_ns > due_ns) return;
  if (schedule_.least_slack_after(key) - free_ns < added_ns) return;
  const std::int32_t owner = works_[riders.front().work].tenant;
  const double reserve = unit.reserve;
  const std::int32_t behind = new_unit(unit.model, owner, key, tenants_[owner].virtual_ns);
  units_[behind].reserve = reserve;  // as it was judged
  units_[handle].members = std::move(kept);
  settle(handle);
  for (const Member& member : riders) works_[member.work].units.push_back(behind);
  units_[behind].members = std::move(riders);
  settle(behind);
}

// Fills a unit up with whole units nearby, where one batch costs less than two.
void LiveQueue::merge_others(std::int32_t handle, std::int64_t free_ns) {
  DeadlineTree::Node node = schedule_.first();
  for (int looked = 0; looked < kMergedLookahead && node != DeadlineTree::kNone; ++looked) {
    if (static_cast<std::int64_t>(units_[handle].members.size()) >= units_[handle].rows_full) return;
    const std::int32_t other = unit_of_node_[node];
    node = schedule_.next(node);
    if (other != handle) merge(handle, other, free_ns);
  }
}

bool LiveQueue::merge(std::int32_t handle, std::int32_t other_handle, std::int64_t free_ns) {
  Unit& unit = units_[handle];
  Unit& other = units_[other_handle];
  if (other.model != unit.model || other.rank != unit.rank) return false;
  if (other.tenant != unit.tenant && is_ahead(other.tenant)) return false;
  const std::int32_t padded = std::max(unit.padded_length, other.padded_length);
  const std::int64_t rows = static_cast<std::int64_t>(unit.members.size() + other.members.size());
  if (rows > (padded == unit.padded_length ? unit.rows_full : rows_full(unit.model, padded))) return false;
  const std::int64_t cost_ns = reserved(upper(unit, rows, padded), unit.reserve);
  const std::int64_t added_ns = cost_ns - schedule_.cost(unit.node);
  if (added_ns >= schedule_.cost(other.node)) return false;
  // The unit runs now: both must be done in time, and those that it passes, or that the other passes, can wait.
  const ScheduleKey& key = schedule_.key(unit.node);
  const std::int64_t due_ns = std::min(schedule_.due(unit.node), schedule_.due(other.node));
  if (free_ns + cost_ns > due_ns || schedule_.least_slack_before(key) - free_ns < cost_ns) return false;
  if (schedule_.least_slack_between(key, schedule_.key(other.node)) - free_ns < added_ns) return false;
  close(handle);
  for (const Member& member : other.members) {
    unit.members.push_back(member);
    works_[member.work].units.push_back(handle);
  }
  unit.padded_length = padded;
  unit.rows_full = rows_full(unit.model, padded);
  unit.cost_ns = upper(unit, rows, padded);
  schedule_.update(unit.node, due_ns, cost_ns);
  other.members.clear();
  free_unit(other_handle);
  open(handle);
  return true;
}

// Charges a batch to the tenants of its rows, by their lengths.
void LiveQueue::charge(const Unit& unit) {
  std::int64_t weight = 0;
  for (const Member& member : unit.members) weight += weighed(member.length);
  const double a_token = static_cast<double>(unit.cost_ns) / static_cast<double>(weight);
  for (const Member& member : unit.members) {
    Tenant& tenant = tenants_[works_[member.work].tenant];
    tenant.virtual_ns += a_token * static_cast<double>(weighed(member.length)) / tenant.weight;
  }
}

// Lists a unit's rows, by works, and takes them out of the sums.
void LiveQueue::list_members(const Unit& unit) {
  for (std::size_t at = 0; at < unit.members.size();) {
    const std::int32_t work = unit.members[at].work;
    const std::size_t first = rows_.size();
    std::int64_t tokens = 0;
    for (; at < unit.members.size() && unit.members[at].work == work; ++at) {
      rows_.push_back(unit.members[at].row);
      tokens += unit.members[at].length;
    }
    const std::size_t rows = rows_.size() - first;
    leave(work, static_cast<std::int64_t>(rows), tokens);
    parts_.push_back({work, static_cast<std::int32_t>(rows), first, works_[work].rows == 0});
    free_if_done(work);
  }
}

std::optional<Batch> LiveQueue::take(std::int64_t free_ns) {
  parts_.clear();
  rows_.clear();
  if (schedule_.empty()) return std::nullopt;
  const std::int32_t handle = choose(free_ns);
  put_off_riders(handle, free_ns);
  merge_others(handle, free_ns);
  Unit& unit = units_[handle];
  unit.cost_ns = upper(unit, static_cast<std::int64_t>(unit.members.size()), unit.padded_length);
  charge(unit);
  list_members(unit);
  Batch batch{unit.model, static_cast<std::int32_t>(unit.members.size()), unit.padded_length, 0, unit.cost_ns};
  for (const Member& member : unit.members) batch.tokens += member.length;
  free_unit(handle);
  return batch;
}

void LiveQueue::reprice() {
  for (std::size_t unit = 0; unit < units_.size(); ++unit) {
    if (units_[unit].node == DeadlineTree::kNone) continue;
    units_[unit].reserve = limits_.reserve;
    settle(static_cast<std::int32_t>(unit));
  }
}

}  // namespace penstock
