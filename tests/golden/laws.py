"""What numpy and scipy find for the fits of `ounce_train::laws`, on noisy runs made from known laws.

Writes `laws.json`. Install: `pip install numpy==2.* scipy==1.*`. Run: `python tests/golden/laws.py`.
"""

import json
import pathlib

import numpy as np
from scipy.optimize import minimize

rng = np.random.default_rng(112)


def scaling():
    runs = []
    for n in (1e6, 4e6, 16e6, 64e6):
        for d in (2e7, 8e7, 3.2e8, 1.28e9):
            loss = 1.7 + 120 * n**-0.34 + 410 * d**-0.28
            runs.append([n, d, loss * np.exp(rng.normal(0, 0.004))])
    runs[6][2] *= 1.3
    n, d, loss = np.log(np.array(runs)).T
    n0, d0, delta = n.mean(), d.mean(), 1e-3

    def residuals(t):
        return np.logaddexp(np.logaddexp(t[0] - t[3] * (n - n0), t[1] - t[4] * (d - d0)), t[2]) - loss

    def huber(t):
        r = np.abs(residuals(t))
        return np.where(r <= delta, 0.5 * r * r, delta * (r - 0.5 * delta)).sum() / delta

    def solve(objective):
        best = None
        for share in ((0.3, 0.3, 0.4), (0.1, 0.1, 0.8), (0.6, 0.2, 0.2), (0.2, 0.6, 0.2)):
            for a in (0.1, 0.3, 0.6, 1.0):
                for b in (0.1, 0.3, 0.6, 1.0):
                    t = np.array([*(np.log(share) + loss.mean()), a, b])
                    for _ in range(3):
                        t = minimize(objective, t, method="Nelder-Mead",
                                     options=dict(maxiter=20000, maxfev=20000, xatol=1e-11, fatol=1e-14)).x
                    if best is None or objective(t) < objective(best):
                        best = t
        return best

    def law(t, objective):
        return dict(irreducible=np.exp(t[2]), params_scale=np.exp(t[0] + t[3] * n0), params_exponent=t[3],
                    tokens_scale=np.exp(t[1] + t[4] * d0), tokens_exponent=t[4], objective=objective(t) * delta)

    least_squares = solve(lambda t: (residuals(t) ** 2).sum() / delta)
    return dict(runs=runs, fit=law(solve(huber), huber), least_squares=law(least_squares, huber))


def power():
    points = []
    for n in (3e4, 1e5, 3e5, 1e6):
        for d in (3e5, 1e6, 3e6):
            points.append([n, d, 1.79 * n**-0.713 * d**0.307 * np.exp(rng.normal(0, 0.1))])
    logs = np.log(np.array(points))
    rows = np.column_stack([np.ones(len(logs)), logs[:, :2]])
    solution, residual, *_ = np.linalg.lstsq(rows, logs[:, 2], rcond=None)
    covariance = residual[0] / (len(logs) - 3) * np.linalg.inv(rows.T @ rows)
    spread = ((logs[:, 2] - logs[:, 2].mean()) ** 2).sum()
    return dict(points=points, scale=np.exp(solution[0]), exponents=list(solution[1:]),
                standard_errors=list(np.sqrt(np.diag(covariance))), r_squared=1 - residual[0] / spread)


def surface():
    trials = []
    for i in range(5):
        for j in range(5):
            x, y = np.log(2.0 ** (-10 + i / 2)), np.log(2.0 ** (11 + j / 2))
            dx, dy = x - np.log(2**-8.8), y - np.log(2**12.3)
            trials.append([np.exp(x), np.exp(y), 3 + 0.2 * dx**2 + 0.1 * dy**2 + 0.05 * dx * dy + rng.normal(0, 0.003)])
    x, y, loss = np.log(np.array(trials)[:, 0]), np.log(np.array(trials)[:, 1]), np.array(trials)[:, 2]
    rows = np.column_stack([np.ones_like(x), x, y, x * x, y * y, x * y])
    c0, gx, gy, a, b, c = np.linalg.lstsq(rows, loss, rcond=None)[0]
    x0, y0 = np.linalg.solve([[2 * a, c], [c, 2 * b]], [-gx, -gy])
    return dict(trials=trials, rate=np.exp(x0), batch=np.exp(y0), curvature=[a, b, c],
                loss=c0 + gx * x0 + gy * y0 + a * x0**2 + b * y0**2 + c * x0 * y0)


result = dict(scaling=scaling(), power=power(), surface=surface())
path = pathlib.Path(__file__).with_name("laws.json")
path.write_text(json.dumps(result, indent=1) + "\n")
print({key: value for key, value in result["scaling"].items() if key != "runs"})
