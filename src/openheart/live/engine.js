/**
 * One value of the run.
 * @typedef {Object} Value
 * @property {number[]} shape
 * @property {string} dtype      PyTorch's name: "float32"
 * @property {Float32Array|Float64Array|Uint8Array|null} data   a copy, row by row; null where no number is known
 * @property {Float64Array|null} bound   with bounds: how far an honest computation may lie from each number
 * @property {string|null} frozen   why the numbers are the recorded ones ("random", "opaque"); null where computed
 * @property {boolean} stale     whether an edit or a step would have changed what is frozen: data is then null
 *
 * One operator call.
 * @typedef {Object} Call
 * @property {number} id
 * @property {string} op         the operator's name
 * @property {string} phase      "forward", "loss", "backward" or "optimizer"
 * @property {string} scope      the module it ran in
 * @property {number} step       the training step, from 0
 * @property {string[]} outputs  the names of what it makes
 * @property {string[]} reads    the names of what its law reads
 * @property {string[]} laws     the law of each output, as mathematics
 *
 * A running program. Reading a value brings everything up to date first.
 * @typedef {Object} Program
 * @property {() => Program} run       computes what is downstream of edits
 * @property {(address: string) => Value} value       "0.out"
 * @property {(address: string) => number} get        "0.out[0,2]"
 * @property {(address: string, number: number) => Program} set    edits one number: of a leaf, an activation, a gradient;
 *     an edit of something computed takes its place after its call
 * @property {(address: string, data: ArrayLike<number>) => Program} setValue   edits all numbers of a value, row by row
 * @property {(name: string, number: number, group?: number) => Program} setOption   "lr": a hyperparameter of the step
 * @property {() => Program} clear     takes all edits back (not the steps)
 * @property {() => Program} reset     back to what was recorded
 * @property {(n?: number) => Program} step   repeats the training step n times: what the step finds takes the value
 *     that the one before left (`0.weight` that of `0.weight.after`); an edit of it is its new starting value.
 *     Throws where the step cannot be repeated honestly, with the reason.
 * @property {() => string[]} addresses
 * @property {Call[]} calls
 * @property {Object<string, number>} options   the hyperparameters that can be set
 * @property {number} steps            how many steps were repeated
 * @property {string[]} notes          what one should know of this program
 */

const READERS = { f: Float32Array, d: Float64Array, i: Int32Array, b: Uint8Array };
const ARRAYS = { float32: Float32Array, bfloat16: Float32Array, float16: Float32Array, bool: Uint8Array };

function bytesOf(text) {
  const binary = atob(text), bytes = new Uint8Array(binary.length);
  for (let n = 0; n < binary.length; n++) bytes[n] = binary.charCodeAt(n);
  return bytes.buffer;
}

/**
 * A program of its own: several can run side by side.
 * @param {{data?: ArrayBuffer}} settings  `data`: the numbers, where they are kept in a file of their own
 * @returns {Program}
 */
export function create(settings = {}) {
  const buffer = settings.data ?? (DATA === null ? null : bytesOf(DATA));
  if (buffer === null) throw new Error("this program keeps its numbers in a file of its own: create({ data })");
  const count = VALUES.length;
  const sizes = VALUES.map(([, shape]) => shape.reduce((a, b) => a * b, 1));
  const v = VALUES.map(([, , dtype], i) => new (ARRAYS[dtype] ?? Float64Array)(sizes[i]));
  const e = BOUNDS ? sizes.map((size) => new Float64Array(size)) : [];
  const o = OPTIONS.map(([, , value]) => value);
  const maker = new Int32Array(count).fill(-1);
  CALLS.forEach((call, c) => call.outputs.forEach(([id]) => (maker[id] = c)));
  const names = new Map([...VALUES.map(([name], i) => [name, i]), ...ALIASES]);
  const carried = new Map(STEP.carried);
  const dropped = new Set(STEP.dropped);

  const edits = new Map(); // id → { data: all numbers or null, cells: Map of place → number }
  const saved = new Map(); // leaf → its numbers before the edits
  const fresh = new Uint8Array(count); // what changed since the last run
  const touched = new Uint8Array(count); // what differs, or may differ, from the recorded run
  const stale = new Uint8Array(count);
  const known = new Uint8Array(count); // whether there are numbers
  const forced = new Set(); // calls to be made again
  const setting = new Set(); // options that were set since the last run
  let optioned = new Set(); // options that differ from the recorded ones
  let steps = 0, begun = false, due = true;

  function load() {
    VALUES.forEach(([, , , kind, offset], i) => {
      known[i] = kind === null ? (maker[i] >= 0 && sizes[i] > 0 ? 0 : +(sizes[i] === 0)) : 1;
      if (kind !== null) v[i].set(new READERS[kind](buffer, offset, sizes[i]));
      if (BOUNDS) e[i].fill(0);
    });
    OPTIONS.forEach(([, , value], n) => (o[n] = value));
    for (const set of [edits, saved, forced, setting, optioned]) set.clear();
    for (const marks of [fresh, touched, stale]) marks.fill(0);
    steps = 0;
    begun = false;
    due = true;
  }

  const isLeaf = (id) => maker[id] < 0 || (steps > 0 && carried.has(id));

  function overlay(id) {
    const edited = edits.get(id);
    if (edited === undefined || isLeaf(id)) return;
    lay(id, edited.data, edited.cells);
    if (edited.data !== null || edited.cells.size === sizes[id]) stale[id] = 0;
  }

  function lay(id, data, cells) {
    if (data !== null) v[id].set(data);
    if (data !== null && BOUNDS) e[id].fill(0);
    for (const [place, number] of cells) {
      v[id][place] = number;
      if (BOUNDS) e[id][place] = 0;
    }
  }

  function run() {
    if (!due) return program;
    const first = steps > 0 ? STEP.first : 0;
    for (let c = first; c < CALLS.length; c++) {
      const call = CALLS[c];
      if (steps > 0 && dropped.has(c)) continue;
      for (const [id, reads, run, frozen, options] of call.outputs) {
        let again = !begun || forced.has(c), moved = false, missing = false;
        for (const r of reads) {
          again ||= fresh[r] === 1;
          moved ||= touched[r] === 1;
          missing ||= stale[r] === 1 || known[r] === 0;
        }
        for (const n of options) {
          again ||= setting.has(n);
          moved ||= optioned.has(n);
        }
        if (!again) continue;
        fresh[id] = 1;
        touched[id] = +(moved || edits.has(id));
        stale[id] = +(frozen === null ? missing : moved || reads.some((r) => stale[r]));
        if (frozen === null && !missing) {
          run(v, e, o);
          known[id] = 1;
        } else if (frozen !== null && edits.has(id) === false && saved.has(id)) {
          v[id].set(saved.get(id));
          saved.delete(id);
        }
        if (edits.has(id) && frozen !== null && !saved.has(id)) saved.set(id, v[id].slice());
        overlay(id);
      }
    }
    fresh.fill(0);
    forced.clear();
    setting.clear();
    begun = true;
    due = false;
    return program;
  }

  function find(address) {
    const match = /^(.*?)\s*\[([^\[\]]*)\]\s*$/.exec(address.trim());
    const name = match ? match[1] : address.trim();
    const id = names.get(name);
    if (id === undefined) throw new Error(`no value is called "${name}"`);
    if (match === null) return [id, null];
    const shape = VALUES[id][1], parts = match[2].trim() === "" ? [] : match[2].split(",").map(Number);
    if (parts.length !== shape.length || parts.some((at, d) => !(Number.isInteger(at) && at >= -shape[d] && at < shape[d]))) {
      throw new Error(`no number "${address}": the shape of ${name} is (${shape.join(", ")})`);
    }
    return [id, parts.reduce((place, at, d) => place * shape[d] + (at < 0 ? at + shape[d] : at), 0)];
  }

  function edit(id, data, cells) {
    if (steps > 0 && maker[id] >= 0 && maker[id] < STEP.first && !carried.has(id)) {
      throw new Error(`${VALUES[id][0]} belongs to a step that is over: edit a value of the step that is repeated`);
    }
    if (isLeaf(id) && !saved.has(id)) saved.set(id, v[id].slice());
    const held = edits.get(id) ?? { data: null, cells: new Map() };
    edits.set(id, held);
    if (data !== null) {
      held.data = data;
      held.cells.clear();
    }
    for (const [place, number] of cells) held.cells.set(place, number);
    if (isLeaf(id)) {
      lay(id, data, cells);
      fresh[id] = touched[id] = 1;
      if (held.data !== null || held.cells.size === sizes[id]) known[id] = 1;
    } else forced.add(maker[id]);
    due = true;
    return program;
  }

  function clear() {
    for (const id of edits.keys()) {
      if (isLeaf(id)) {
        v[id].set(saved.get(id));
        saved.delete(id);
        fresh[id] = 1;
        touched[id] = +(steps > 0 && carried.has(id));
      } else forced.add(maker[id]);
    }
    edits.clear();
    due = true;
    return program;
  }

  const quick = []; // the calls of the step, one after another, for when nothing is edited
  CALLS.forEach((call, c) => {
    if (c < STEP.first || dropped.has(c)) return;
    for (const [, , run, frozen] of call.outputs) if (frozen === null) quick.push(run);
  });

  function step(n = 1) {
    if (STEP.refused !== null) throw new Error(`this step cannot be repeated: ${STEP.refused}`);
    for (let k = 0; k < n; k++) {
      run();
      for (const [found, left] of STEP.carried) {
        if (stale[left]) throw new Error(`${VALUES[left][0]} is not known: it hangs on numbers that are kept as recorded`);
        v[found].set(v[left]);
        if (BOUNDS) e[found].set(e[left]);
      }
      if (steps === 0) for (const id of carried.keys()) maker[id] < STEP.first || (known[id] = 1);
      steps++;
      for (const id of carried.keys()) {
        edits.delete(id);
        saved.delete(id);
        fresh[id] = touched[id] = 1;
      }
      due = true;
      if (k === 0 || edits.size > 0) continue;
      // From the second repetition on, what is touched and stale is as it was: only the numbers move.
      for (; k < n - 1; k++) {
        for (const call of quick) call(v, e, o);
        for (const [found, left] of STEP.carried) v[found].set(v[left]);
        if (BOUNDS) for (const [found, left] of STEP.carried) e[found].set(e[left]);
        steps++;
      }
    }
    return run();
  }

  const program = {
    run,
    step,
    clear,
    calls: CALLS.map((call, c) => ({
      id: c,
      op: call.op,
      phase: call.phase,
      scope: call.scope,
      step: call.step,
      outputs: call.outputs.map(([id]) => VALUES[id][0]),
      reads: [...new Set(call.outputs.flatMap(([, reads]) => reads))].map((id) => VALUES[id][0]),
      laws: call.outputs.map(([, , , , , law]) => (law === null ? null : LAWS[law])),
    })),
    notes: NOTES,
    reset() {
      load();
      return program;
    },
    addresses: () => VALUES.map(([name]) => name),
    value(address) {
      const [id, place] = find(address);
      if (place !== null) throw new Error(`${address} is one number: get() reads it`);
      run();
      const there = known[id] && !stale[id], frozen = maker[id] < 0 ? null : frozenAt(id);
      return {
        shape: VALUES[id][1],
        dtype: VALUES[id][2],
        data: there ? v[id].slice() : null,
        bound: there && BOUNDS ? e[id].slice() : null,
        frozen,
        stale: stale[id] === 1,
      };
    },
    get(address) {
      const [id, place] = find(address);
      if (place === null && sizes[id] !== 1) throw new Error(`${address} is not one number: value() reads it`);
      run();
      if (!known[id]) throw new Error(`${address} has no number: ${frozenAt(id)}`);
      if (stale[id]) throw new Error(`${address} is not known: it hangs on numbers that are kept as recorded`);
      return v[id][place ?? 0];
    },
    set(address, number) {
      const [id, place] = find(address);
      if (place === null && sizes[id] !== 1) throw new Error(`${address} is not one number: setValue() edits it`);
      return edit(id, null, [[place ?? 0, number]]);
    },
    setValue(address, data) {
      const [id, place] = find(address);
      if (place !== null) throw new Error(`${address} is one number: set() edits it`);
      if (data.length !== sizes[id]) throw new Error(`${address} holds ${sizes[id]} numbers, and ${data.length} were given`);
      return edit(id, Float64Array.from(data), []);
    },
    setOption(name, number, group) {
      let found = false;
      OPTIONS.forEach(([option, g, recorded], n) => {
        if (option !== name || (group !== undefined && g !== group)) return;
        found = true;
        o[n] = number;
        setting.add(n);
        number === recorded ? optioned.delete(n) : optioned.add(n);
      });
      if (!found) throw new Error(`no option "${name}" can be set here; these can: ${Object.keys(program.options).join(", ")}`);
      due = true;
      return program;
    },
    get options() {
      return Object.fromEntries(OPTIONS.map(([name], n) => [name, o[n]]).reverse());
    },
    get steps() {
      return steps;
    },
  };

  function frozenAt(id) {
    const made = CALLS[maker[id]]?.outputs.find(([out]) => out === id);
    return made === undefined ? null : made[3];
  }

  load();
  return program;
}
