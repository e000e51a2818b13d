// What live programs are measured against: the same networks by hand, and as a graph of objects.

export const relu = { of: (x) => (x > 0 ? x : 0), slope: (y) => (y > 0 ? 1 : 0) };
export const tanh = { of: Math.tanh, slope: (y) => 1 - y * y };

// A multilayer perceptron as one writes it by hand: typed arrays, one loop nest a layer, plain SGD.
export function byHand({ sizes, parameters, activation, loss, input, target, lr }) {
  const depth = sizes.length - 1, batch = input.length / sizes[0];
  const w = [], b = [], gw = [], gb = [], out = [Float32Array.from(input)], delta = [null];
  for (let k = 0; k < depth; k++) {
    w.push(Float32Array.from(parameters[2 * k]));
    b.push(Float32Array.from(parameters[2 * k + 1]));
    gw.push(new Float32Array(w[k].length));
    gb.push(new Float32Array(b[k].length));
    out.push(new Float32Array(batch * sizes[k + 1]));
    delta.push(new Float32Array(batch * sizes[k + 1]));
  }
  const act = { relu, tanh }[activation];

  function forward() {
    for (let k = 0; k < depth; k++) {
      const n = sizes[k], m = sizes[k + 1], x = out[k], y = out[k + 1], weight = w[k], bias = b[k];
      const last = k === depth - 1 && loss === "cross-entropy";
      for (let s = 0; s < batch; s++) {
        for (let j = 0; j < m; j++) {
          let sum = bias[j];
          for (let i = 0; i < n; i++) sum += x[s * n + i] * weight[j * n + i];
          y[s * m + j] = last ? sum : act.of(sum);
        }
      }
    }
    return out[depth];
  }

  function lossAndSlope() {
    const m = sizes[depth], y = out[depth], d = delta[depth];
    let total = 0;
    for (let s = 0; s < batch; s++) {
      if (loss === "squares") {
        for (let j = 0; j < m; j++) {
          const miss = y[s * m + j] - target[s * m + j];
          total += (miss * miss) / (batch * m);
          d[s * m + j] = ((2 * miss) / (batch * m)) * act.slope(y[s * m + j]);
        }
        continue;
      }
      let most = -Infinity, z = 0;
      for (let j = 0; j < m; j++) most = Math.max(most, y[s * m + j]);
      for (let j = 0; j < m; j++) z += Math.exp(y[s * m + j] - most);
      total -= (y[s * m + target[s]] - most - Math.log(z)) / batch;
      for (let j = 0; j < m; j++) {
        d[s * m + j] = (Math.exp(y[s * m + j] - most) / z - (j === target[s] ? 1 : 0)) / batch;
      }
    }
    return total;
  }

  function step() {
    forward();
    const total = lossAndSlope();
    for (let k = depth - 1; k >= 0; k--) {
      const n = sizes[k], m = sizes[k + 1], x = out[k], d = delta[k + 1], below = delta[k], weight = w[k];
      gw[k].fill(0);
      gb[k].fill(0);
      for (let s = 0; s < batch; s++) {
        for (let j = 0; j < m; j++) {
          const g = d[s * m + j];
          gb[k][j] += g;
          for (let i = 0; i < n; i++) gw[k][j * n + i] += g * x[s * n + i];
        }
        if (k === 0) continue;
        for (let i = 0; i < n; i++) {
          let sum = 0;
          for (let j = 0; j < m; j++) sum += d[s * m + j] * weight[j * n + i];
          below[s * n + i] = sum * act.slope(x[s * n + i]);
        }
      }
    }
    for (let k = 0; k < depth; k++) {
      for (let i = 0; i < w[k].length; i++) w[k][i] -= lr * gw[k][i];
      for (let j = 0; j < b[k].length; j++) b[k][j] -= lr * gb[k][j];
    }
    return total;
  }
  return { forward, step, parameters: () => w.flatMap((weight, k) => [weight, b[k]]) };
}

// The same as a graph of neurons and edges, each an object, one sample at a time: how teaching tools such as
// TensorFlow Playground hold a network.
class Neuron {
  constructor(bias, activation) {
    Object.assign(this, { bias, activation, inputs: [], outputs: [], total: 0, value: 0, byValue: 0, byTotal: 0 });
    Object.assign(this, { summed: 0, seen: 0 });
  }
}
class Edge {
  constructor(from, to, weight) {
    Object.assign(this, { from, to, weight, slope: 0, summed: 0, seen: 0 });
    from.outputs.push(this);
    to.inputs.push(this);
  }
}

export function asObjects({ sizes, parameters, activation, input, target, lr }) {
  const act = { relu, tanh }[activation], batch = input.length / sizes[0];
  const layers = sizes.map((n, k) =>
    Array.from({ length: n }, (_, j) => new Neuron(k === 0 ? 0 : parameters[2 * k - 1][j], act)),
  );
  for (let k = 1; k < sizes.length; k++) {
    layers[k].forEach((to, j) =>
      layers[k - 1].forEach((from, i) => new Edge(from, to, parameters[2 * k - 2][j * sizes[k - 1] + i])),
    );
  }
  const last = layers[layers.length - 1];

  function forward(sample) {
    layers[0].forEach((neuron, i) => (neuron.value = input[sample * sizes[0] + i]));
    for (let k = 1; k < layers.length; k++) {
      for (const neuron of layers[k]) {
        neuron.total = neuron.bias;
        for (const edge of neuron.inputs) neuron.total += edge.weight * edge.from.value;
        neuron.value = neuron.activation.of(neuron.total);
      }
    }
  }

  function backward(sample) {
    last.forEach((neuron, j) => (neuron.byValue = 2 * (neuron.value - target[sample * last.length + j])));
    for (let k = layers.length - 1; k > 0; k--) {
      for (const neuron of layers[k]) {
        neuron.byTotal = neuron.byValue * neuron.activation.slope(neuron.value);
        neuron.summed += neuron.byTotal;
        neuron.seen++;
        for (const edge of neuron.inputs) {
          edge.slope = neuron.byTotal * edge.from.value;
          edge.summed += edge.slope;
          edge.seen++;
        }
      }
      if (k === 1) continue;
      for (const neuron of layers[k - 1]) {
        neuron.byValue = 0;
        for (const edge of neuron.outputs) neuron.byValue += edge.weight * edge.to.byTotal;
      }
    }
  }

  function update() {
    for (let k = 1; k < layers.length; k++) {
      for (const neuron of layers[k]) {
        neuron.bias -= (lr * neuron.summed) / neuron.seen;
        neuron.summed = neuron.seen = 0;
        for (const edge of neuron.inputs) {
          edge.weight -= (lr * edge.summed) / edge.seen;
          edge.summed = edge.seen = 0;
        }
      }
    }
  }

  return {
    forward: () => {
      for (let s = 0; s < batch; s++) forward(s);
    },
    step: () => {
      for (let s = 0; s < batch; s++) {
        forward(s);
        backward(s);
      }
      update();
    },
    parameters: () =>
      layers.slice(1).flatMap((layer) => [
        layer.flatMap((neuron) => neuron.inputs.map((edge) => edge.weight)),
        layer.map((neuron) => neuron.bias),
      ]),
  };
}

function cpu(work, repeats) {
  const start = process.cpuUsage();
  work(repeats);
  const { user, system } = process.cpuUsage(start);
  return (user + system) / 1e6 / repeats;
}

// Median CPU seconds of one call of each work (a function of how often), in turns after a warm-up.
export function interleaved(works, rounds, least) {
  const repeats = {}, taken = {};
  for (const [name, work] of Object.entries(works)) {
    let n = 1;
    for (work(1); cpu(work, n) * n < least; ) n *= 2;
    repeats[name] = n;
    taken[name] = [];
  }
  for (let turn = 0; turn < rounds; turn++) {
    for (const [name, work] of Object.entries(works)) taken[name].push(cpu(work, repeats[name]));
  }
  const median = (times) => times.sort((a, b) => a - b)[times.length >> 1];
  return Object.fromEntries(Object.entries(taken).map(([name, times]) => [name, median(times)]));
}
